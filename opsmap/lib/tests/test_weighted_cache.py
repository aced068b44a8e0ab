"""The cache of few large things."""

from __future__ import annotations

import threading

from opsmap.lib.weighted_cache import WeightedCache


def test_what_was_asked_for_last_stays() -> None:
    cache: WeightedCache[str, int] = WeightedCache(10)
    cache.put("a", 1, 4)
    cache.put("b", 2, 4)
    assert cache.get("a") == 1
    cache.put("c", 3, 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_what_is_heavier_than_all_is_not_kept_and_pushes_nothing_out() -> None:
    cache: WeightedCache[str, int] = WeightedCache(10)
    cache.put("a", 1, 4)
    cache.put("b", 2, 11)
    assert (cache.get("a"), cache.get("b"), len(cache)) == (1, None, 1)


def test_put_again_it_weighs_once_and_one_that_outgrew_the_cache_is_gone() -> None:
    cache: WeightedCache[str, int] = WeightedCache(10)
    for value in range(5):
        cache.put("a", value, 6)
    cache.put("b", 9, 4)
    assert (cache.get("a"), cache.get("b")) == (4, 9)
    cache.put("a", 5, 11)
    assert (cache.get("a"), cache.get("b")) == (None, 9)


def test_cleared_it_is_empty_and_as_large_as_before() -> None:
    cache: WeightedCache[str, int] = WeightedCache(10)
    cache.put("a", 1, 10)
    cache.clear()
    assert cache.get("a") is None
    cache.put("b", 2, 10)
    assert cache.get("b") == 2


def test_threads_do_not_spoil_what_it_weighs() -> None:
    cache: WeightedCache[int, int] = WeightedCache(50)

    def work(seed: int) -> None:
        for number in range(2000):
            key = (seed * 7 + number) % 40
            cache.put(key, number, 1 + key % 5)
            cache.get((key + 3) % 40)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = [key for key in range(40) if cache.get(key) is not None]
    assert sum(1 + key % 5 for key in kept) <= 50
    # All fit in again: nothing of what was dropped still counts.
    for key in range(40):
        cache.put(key, 0, 1)
    assert len(cache) == 40
