"""Measurements in features of episodes: what tables 3 and 4 and the figures of features rest on.

FEATURES, one row an episode and variant: the last stride-32 maps as the variant has them once it is tuned,
after all modules, of the whole picture. (In the model the support mask comes before ACPA.) FILTERED, nine
rows an episode: the source model on pictures filtered in nine ways.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from cdfss.data import metrics
from cdfss.errors import CdfssError
from cdfss.evaluation import results
from cdfss.running import provenance

# Which episode a row is of, as in evaluation rows: domain, variant ... supports.
_LIST = list(results.SCHEMA)[: results.SCHEMA.names.index("supports") + 1]
_INFORMATION = [
    ("support_information", pa.float32()),  # nats, of the first support; analyses.mutual_information
    ("query_information", pa.float32()),
    ("support_chance", pa.float32()),  # nats; analyses.chance_information
    ("query_chance", pa.float32()),
]
_NUMBERS = pa.list_(pa.float32())
FEATURES = pa.schema(
    [
        *_LIST,
        *_INFORMATION,
        ("cka", pa.float32()),  # of first support and query, 0..1; analyses.support_query_cka
        ("magnitudes", _NUMBERS),  # (C,) of the query; analyses.magnitudes
        ("phases", _NUMBERS),  # (50,) of the query; analyses.phase_histogram
        ("correlations", _NUMBERS),  # (100,) of the query; analyses.correlation_histogram
        ("height", pa.int32()),  # h and w of what follows, row by row
        ("width", pa.int32()),
        ("activation", _NUMBERS),  # (h * w,) of the query; analyses.activation
        ("similarity", _NUMBERS),  # (h * w,) of the query; analyses.similarity, all stride-32 maps
        ("factors", pa.list_(pa.string())),  # names of learnt factors on frequencies, `Module.factors`
        ("factor_maps", pa.list_(_NUMBERS)),  # (h * w,) of each, mean over channels
        ("step", pa.list_(pa.int32())),  # where the query was segmented; 0 is insertion alone
        ("step_intersection", pa.list_(pa.int64())),  # foreground pixels after that many steps
        ("step_union", pa.list_(pa.int64())),
    ]
)
FILTERED = pa.schema(
    [
        *(field for field in _LIST if field.name != "variant"),
        ("amplitude", pa.string()),  # all, low or high
        ("phase", pa.string()),
        ("radius", pa.float64()),
        ("fill", pa.string()),
        *(field for field in results.SCHEMA if field.name.startswith(("intersection_", "union_"))),
        *_INFORMATION,
    ]
)


NO_FILTER = "amplitude all, phase all"


def load(paths) -> pd.DataFrame | None:
    """Measurements of files, all FEATURES or all FILTERED, as one frame, arrays as NumPy arrays.

    Args:
        paths: of files; None is returned for an empty list, where a run has no variant to measure.

    Raises:
        CdfssError: when one is damaged, or they do not belong together (`provenance.must_agree`).
    """
    files = [paths] if isinstance(paths, (str, Path)) else list(paths)
    tables = [provenance.read_table(file) for file in files]
    provenance.must_agree({file: provenance.facts(t.schema) for file, t in zip(files, tables, strict=True)})
    for file, table in zip(files, tables, strict=True):
        wanted = FILTERED if "fill" in table.schema.names else FEATURES
        if lacks := [name for name in wanted.names if name not in table.schema.names]:
            raise CdfssError(
                f"{file} has no column {lacks[0]!r}: it was measured by another version of cdfss. Delete "
                "it and run the same command again: exactly it is made anew"
            )
    tables = [table.replace_schema_metadata() for table in tables]
    return pa.concat_tables(tables).to_pandas() if tables else None


def filter_name(amplitude, phase):
    """A filter's name, "amplitude low, phase high"; of strings, or of columns of FILTERED."""
    return "amplitude " + amplitude + ", phase " + phase


def finite(
    rows: pd.DataFrame, columns: list[str], by: str, settings: dict | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Rows with finite numbers, of the same episodes for all, and notes on what was left out.

    An adaptation that diverges has no features to speak of. Where one diverged in most episodes of a
    domain, its rows there are left out; else the episode is, of all.

    Args:
        columns: of the numbers.
        by: the column that says what is compared.
        settings: `Shown.table_settings`, for the titles that notes name.
    """
    settings = settings or {"variants": {}, "domains": {}}
    titles = {name: variant["title"] for name, variant in settings["variants"].items()}
    domains = settings["domains"]
    notes, key = [], ["domain", "episode"]
    ended_well = pd.Series(np.isfinite(rows[columns].to_numpy(float)).all(axis=1), rows.index)
    hopeless = ended_well.groupby([rows[by], rows["domain"]]).transform("mean") < 0.5
    if hopeless.any():
        pairs = rows.loc[hopeless, [by, "domain"]].drop_duplicates().itertuples(index=False)
        named = ", ".join(f"{titles.get(name, name)} on {domains.get(d, d)}" for name, d in pairs)
        notes.append(f"Left out, since adaptation diverged in most episodes: {named}.")
    bad = rows.loc[~ended_well & ~hopeless, key].drop_duplicates()
    if len(bad):
        numbers = bad.groupby("domain", sort=False).size().items()
        named = ", ".join(f"{domains.get(d, d)} {number}" for d, number in numbers)
        notes.append(f"Episodes left out, since an adaptation diverged: {named}.")
    lost = pd.MultiIndex.from_frame(rows[key]).isin(pd.MultiIndex.from_frame(bad))
    return rows[~hopeless & ~lost], notes


def after_step(measured: pd.DataFrame, at: int = -1) -> pd.DataFrame:
    """Measurements as rows with the counts that `results.counts` takes, after a step that was shown.

    Args:
        measured: rows of FEATURES.
        at: number in their `step`; -1 is the last. Background is not kept there, and is 0.
    """
    return measured.assign(
        intersection_foreground=[pixels[at] for pixels in measured["step_intersection"]],
        union_foreground=[pixels[at] for pixels in measured["step_union"]],
        intersection_background=0,
        union_background=0,
    )


def of_every_class(episodes: pd.DataFrame, number: int) -> pd.DataFrame:
    """`number` episodes of a list, in its order, as many of each class as can be; all if shorter.

    Within a class they are at even distances, and so are the classes if they are more than `number`.
    """
    classes = [group.index for _, group in episodes.groupby("class_id", sort=False)]
    if len(classes) > number:
        return episodes.loc[sorted(members[0] for members in _evenly(classes, number))]
    shares = [0] * len(classes)
    while sum(shares) < min(number, len(episodes)):
        growing = [i for i, members in enumerate(classes) if shares[i] < len(members)]
        shares[min(growing, key=lambda i: shares[i])] += 1
    chosen = [label for members, share in zip(classes, shares) for label in _evenly(members, share)]
    return episodes.loc[sorted(chosen)]


def _evenly(values, number: int) -> list:
    return [values[i * len(values) // number] for i in range(number)]


def steps_to_show(steps: int) -> list[int]:
    """0, then steps that grow by about a half, up to `steps`: where a curve over steps has points."""
    shown, step = [0], 1
    while step < steps:
        shown.append(step)
        step = max(step + 1, step * 3 // 2)
    return sorted({*shown, steps})


def features(
    variants: dict[str, dict], index_path, episodes_path, paths: list, kept, compute: dict, pictures=None
) -> None:
    """The job that measures the features of variants of HSNet on one domain.

    Args:
        variants: by name; of each "settings", `Jobs.analysis_settings`, and the files "checkpoint" and
            "weights".
        paths: of the files to write, in the order of the variants, with the columns of FEATURES.
        kept: folder for what survives the job, as in `evaluate.run`.
        compute: `Jobs.compute_settings`.
        pictures: as `index.load`.

    Raises:
        CdfssError: as `evaluate.run`.
    """

    def measure(method, shown):
        import torch

        from cdfss.methods.hsnet.adaptation import Adaptation

        query, support, masks, truth, void = shown
        steps = method.settings.steps_taken
        rate = float(method.rate_for(support[None], masks[None]))
        adaptation = Adaptation(method.model, support, masks, rate, **method.tuning)
        shown_truth = torch.from_numpy(truth)[None].to(query.device)
        shown = steps_to_show(steps)
        counted = []
        for step in range(steps + 1):
            if step:
                adaptation.step()
            if step in shown:
                predicted = adaptation.predict(query[None], shown_truth)[0].cpu()
                counted.append(metrics.counts(predicted, truth, void))
        intersections, unions = (np.stack(pixels)[:, 1] for pixels in zip(*counted))
        return [
            {
                **measured(adaptation.model, query, support[0], masks[0], shown_truth),
                "step": shown,
                "step_intersection": intersections.tolist(),
                "step_union": unions.tolist(),
            }
        ]

    _every_episode(variants, index_path, episodes_path, paths, kept, compute, measure, FEATURES, pictures)


def filtering(
    settings: dict, index_path, episodes_path, checkpoint, weights, path, compute: dict, pictures=None
) -> None:
    """The job that evaluates the source model on filtered pictures of one domain (paper figure 1).

    Support and query pictures are filtered alike, in 0..1, before they are normalised; what then
    lies outside 0..1 stays there.

    Args:
        settings: `Jobs.filtering_settings`.
        path: of the file to write, with the columns of FILTERED: nine rows an episode.
        compute: `Jobs.compute_settings`.
        pictures: as `index.load`.
    """

    def measure(method, shown):
        from cdfss.backbones.normalisation import normalised, unnormalised
        from cdfss.evaluation import analyses
        from cdfss.methods.hsnet.adaptation import Adaptation
        from cdfss.methods.hsnet.model import COARSE

        query, support, masks, truth, void = shown
        model, rows = method.model, []
        facts = model.backbone.facts
        for amplitude in analyses.BANDS:
            for phase in analyses.BANDS:
                bands = (amplitude, phase, settings["radius"], settings["fill"])
                seen, others = (
                    normalised(analyses.filter_pictures(unnormalised(p, facts), *bands), facts)
                    for p in (query[None], support)
                )
                predicted = Adaptation(model, others, masks, 0.0).predict(seen)[0].cpu()
                intersection, union = metrics.counts(predicted, truth, void)
                maps = [model.features(p)[COARSE][-1][0] for p in (others[:1], seen)]
                rows.append(
                    {
                        "amplitude": amplitude,
                        "phase": phase,
                        "radius": settings["radius"],
                        "fill": settings["fill"],
                        **results.count_columns(intersection, union),
                        **_information(*maps),
                    }
                )
        return rows

    model = {"source": {"settings": settings, "checkpoint": checkpoint, "weights": weights}}
    with tempfile.TemporaryDirectory() as nothing_stays:
        files = model, index_path, episodes_path, [path], nothing_stays
        _every_episode(*files, compute, measure, FILTERED, pictures)


def measured(model, query, support, mask, truth) -> dict:
    """Measurements of a tuned model on one query and one support.

    Args:
        query, support: normalised, (3, S, S).
        mask: of the support, (S, S).
        truth: of the query, (1, S, S), for modules that are shown it.

    Returns:
        The columns of FEATURES that concern features and masks.
    """
    import torch

    from cdfss.evaluation import analyses
    from cdfss.methods.hsnet.model import COARSE

    with torch.no_grad():
        stride_32 = [model.filtered(model.features(p[None])[COARSE]) for p in (support, query)]
        everywhere = torch.ones(1, 1, *stride_32[0].shape[-2:], device=query.device)  # no mask
        changed = model.chain.together(*stride_32[::-1], everywhere, truth[None])
        query_maps, support_maps = (maps[:, 0].float() for maps in changed)  # (L, C, h, w)
        last = query_maps[-1]
    # The model computes in the configured precision, what is measured in it always in float32.
    with torch.no_grad(), torch.autocast(last.device.type, enabled=False):
        numbers = {
            "magnitudes": analyses.magnitudes(last),
            "phases": analyses.phase_histogram(last),
            "correlations": analyses.correlation_histogram(last),
            "activation": analyses.activation(last),
            "similarity": analyses.similarity(query_maps, support_maps, mask),
        }
        factors = {name: of_all.mean((0, 1)) for name, of_all in model.chain.factors().items()}
        return {
            **_information(support_maps[-1], last),
            "cka": analyses.support_query_cka(support_maps[-1], last),
            "height": last.shape[-2],
            "width": last.shape[-1],
            **{name: _flat(values) for name, values in numbers.items()},
            "factors": list(factors),
            "factor_maps": list(map(_flat, factors.values())),
        }


def _flat(values) -> np.ndarray:
    return values.float().flatten().cpu().numpy()


def _information(support_maps, query_maps) -> dict:
    import torch

    from cdfss.evaluation import analyses

    maps = {"support": support_maps, "query": query_maps}
    with torch.autocast(query_maps.device.type, enabled=False):
        return {
            **{f"{name}_information": analyses.mutual_information(m) for name, m in maps.items()},
            **{f"{name}_chance": analyses.chance_information(m) for name, m in maps.items()},
        }


def _every_episode(
    variants: dict[str, dict],
    index_path,
    episodes_path,
    paths,
    kept,
    compute: dict,
    measure,
    schema,
    pictures,
):
    """Rows of `measure` for episodes of a list, of each variant written to its path.

    `measure` takes the method, `cdfss.methods.hsnet`, and the pictures of an episode on its device: query
    (3, S, S), supports (k, 3, S, S), their masks (k, S, S), the query's truth and void (S, S) in NumPy.
    """
    from cdfss.data import episodes
    from cdfss.data import index as indexes
    from cdfss.evaluation import together
    from cdfss.evaluation.evaluate import origin

    index = indexes.load(index_path, pictures)
    whole = episodes.load_of(episodes_path, index)

    def chosen(settings):
        return of_every_class(whole, settings["episodes"])["episode"].tolist()

    together.run(
        variants,
        kept,
        {"rows": schema},
        {"rows": paths},
        chosen,
        lambda settings: origin(settings, index, whole, "measurements"),
        compute | {"compile": False},
        lambda members: _measure(members, index, whole, measure),
    )


def _measure(members: list, index, listed: pd.DataFrame, measure) -> None:
    """Measure members of a job on the episodes that they lack."""
    import torch

    from cdfss.backbones.normalisation import normalise
    from cdfss.evaluation import together
    from cdfss.running.progress import Progress

    lacking = {member.name: member.lacking for member in members}
    first = members[0].settings
    what = members[0].name if len(members) == 1 else f"{len(members)} variants"
    progress = Progress(f"{first['domain']}, {what}: episodes measured", sum(map(len, lacking.values())))
    for episode in listed[listed["episode"].isin(set().union(*lacking.values()))].itertuples():
        numbers = (episode.query_row, *episode.support_rows)
        read = [index.read(index.rows.loc[number], first["image_size"]) for number in numbers]
        pictures = torch.from_numpy(np.stack([image for image, _, _ in read]))
        masks = torch.from_numpy(np.stack([mask for _, mask, _ in read[1:]])).float()
        _, truth, void = read[0]
        of_list = {key: getattr(episode, key) for key in ("episode", "class_id", "class_name", "query")}
        of_list["supports"] = list(episode.supports)
        for member in members:
            if member.failed or episode.episode not in lacking[member.name]:
                continue
            with member.trying():
                method, device = member.method, member.method.given.device
                images = normalise(pictures.to(device), method.model.backbone.facts)
                seen = images[0], images[1:], masks.to(device), truth, void
                said = {key: member.settings.get(key) for key in ("domain", "variant", "shot", "seed")}
                member.records["rows"] += [{**of_list, **said, **row} for row in measure(method, seen)]
                progress.step()
                member.save(together.EVERY)
