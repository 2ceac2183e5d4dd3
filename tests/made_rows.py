"""Rows and measurements as evaluation writes them, with random numbers."""

import numpy as np

from cdfss import configuration
from cdfss.configuration.jobs import Jobs
from cdfss.configuration.shown import Shown


def table_settings(variants, domains=("lungs", "cells"), title="Demo", **more):
    """`Shown.table_settings` of a run with these variants and domains."""
    values = {"name": "x", "title": title, "image_size": 64, "variants": variants} | more
    values["data"] = {n: {"format": "fss1000"} for n in ("source", *domains)} | more.get("data", {})
    values["source"] = {"data": "source", "validation": {"data": "source"}}
    values["domains"] = {name: {} for name in domains}
    return Shown(Jobs(configuration.parse(values))).table_settings()


def _of_list(domain, shot, seed, episode):
    return {
        "domain": domain,
        "shot": shot,
        "seed": seed,
        "episode": episode,
        "class_id": episode % 2,
        "class_name": f"class {episode % 2}",
        "query": f"{episode}.png",
        "supports": ["a.png"],
    }


def _counts(generator):
    union = generator.randint(50, 100, 2)
    return {
        "intersection_background": int(union[0] // 2),
        "intersection_foreground": int(generator.randint(0, 50)),
        "union_background": int(union[0]),
        "union_foreground": int(union[1]),
    }


def row(generator, domain, variant, shot, seed, episode, source=None):
    """One evaluation row."""
    return {
        **_of_list(domain, shot, seed, episode),
        "variant": variant,
        "source": source,
        **(counts := _counts(generator)),
        **{f"original_{name}": 4 * pixels for name, pixels in counts.items()},
        "first_loss": 1.0,
        "last_loss": 0.5,
        "steps": 60,
        "learning_rate": 0.5 if variant == "fast" else 0.01,
        "parameters_added": 338,
        "parameters_tuned": 338,
        "most_votes": None,
        "voted_pixels": None,
        "supports_unseen": None,
        "seconds": float(generator.rand() + 0.1),
        "fit_seconds": 0.05,
        "predict_seconds": 0.05,
        "peak_memory_mb": float(generator.rand() * 1000),
        "device": "cpu",
    }


def _information(generator):
    names = ("support_information", "query_information", "support_chance", "query_chance")
    return {name: float(generator.rand()) for name in names}


def _list(settings, episodes):
    for domain in settings["domains"]:
        for episode in range(episodes):
            yield _of_list(domain, settings["shots"][0], settings["seeds"][0], episode)


def filtered_rows(settings, episodes=6):
    """Nine rows an episode, one a filter."""
    generator = np.random.RandomState(1)
    bands = ("all", "low", "high")
    return [
        {**of_list, "amplitude": a, "phase": p, "radius": 0.1, "fill": "zero"}
        | _counts(generator)
        | _information(generator)
        for of_list in _list(settings, episodes)
        for a in bands
        for p in bands
    ]


def feature_rows(settings, variants, episodes=6, channels=20, side=3):
    """Measurements of these variants; those whose name begins with "apm" have masks."""
    generator = np.random.RandomState(2)

    def numbers(size):
        return generator.rand(size).astype(np.float32)

    def share(size):
        values = numbers(size)
        return values / values.sum()

    return [
        {
            **of_list,
            "variant": variant,
            **_information(generator),
            "cka": float(generator.rand()),
            "magnitudes": numbers(channels),
            "phases": share(50),
            "correlations": share(100),
            "height": side,
            "width": side,
            "activation": numbers(side * side),
            "similarity": numbers(side * side),
            "factors": ["amplitude", "phase"] if variant.startswith("apm") else [],
            "factor_maps": [numbers(side * side) for _ in range(2)] if variant.startswith("apm") else [],
            "step": [0, 2, 5] if variant.startswith("apm") else [0],
            "step_intersection": [3, 9, 20] if variant.startswith("apm") else [3],
            "step_union": [40, 40, 40] if variant.startswith("apm") else [40],
        }
        for variant in variants
        for of_list in _list(settings, episodes)
    ]
