"""From what a host says of itself to what a person could have written. Pure: plain data in, plain data out."""
