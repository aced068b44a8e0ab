from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("gateways", "0005_command_history")]

    operations = [
        migrations.AddField("command", "cancel_lease_until", models.DateTimeField(null=True)),
        migrations.AddField("command", "heard_at", models.DateTimeField(null=True)),
        migrations.AddIndex(
            "command",
            models.Index(
                condition=models.Q(
                    ("is_cancel_requested", True), ("state__in", ["queued", "received", "sent", "started"])
                ),
                fields=["cancel_lease_until"],
                name="command_to_cancel",
            ),
        ),
    ]
