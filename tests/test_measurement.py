"""Measurements agree with evaluation, and with the analyses done by hand."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from test_evaluation import SIZE, method_of, rows_of, settings_of

from cdfss import adapt
from cdfss.backbones.normalisation import normalise, normalised, unnormalised
from cdfss.data import episodes
from cdfss.evaluation import analyses, measurement
from cdfss.methods.frequency import weighted_by_phase
from cdfss.methods.hsnet.model import COARSE

COMPUTE = {"device": "cpu", "compile": False, "episodes_at_once": "auto"}


@pytest.fixture
def files(data, tmp_path):
    """Paths of the index and of the episode list."""
    episodes.save(data[1], tmp_path / "episodes.parquet", {})
    return tmp_path / "index.parquet", tmp_path / "episodes.parquet"


def measured(settings, files, checkpoint, path):
    """The features of one variant, in a job of its own."""
    one = {"settings": settings, "checkpoint": checkpoint, "weights": None}
    kept = path.parent / "kept"
    measurement.features({settings["variant"]: one}, *files, [path], kept, COMPUTE)
    return measurement.load([path])


def pictures_of(data, episode, facts):
    rows = (episode.query_row, *episode.support_rows)
    read = [data[0].read(data[0].rows.loc[row], SIZE) for row in rows]
    images = normalise(torch.from_numpy(np.stack([image for image, _, _ in read])), facts)
    return images[0], images[1:], torch.from_numpy(np.stack([mask for _, mask, _ in read[1:]])).float()


def weighted(model, maps):
    """Maps after ACPA, without a support mask."""
    return weighted_by_phase(maps, *(model.part("acpa")[name] for name in ("squeeze", "excite")))


def test_features_are_those_of_the_tuned_model(data, files, checkpoint, tmp_path):
    settings = settings_of("apm_m_acpa")
    path = tmp_path / "features.parquet"
    found = measured(settings | {"episodes": 2}, files, checkpoint, path)
    assert found["episode"].tolist() == [0, 1]
    assert json.loads(pq.read_schema(path).metadata[b"cdfss"])["settings"]["episodes"] == 2
    # The last step is what evaluation finds, step 0 insertion alone.
    rows, _ = rows_of("apm_m_acpa", checkpoint, data)
    rows = rows.set_index("episode")
    model = method_of(settings, checkpoint).model
    for line, listed in zip(found.itertuples(), data[1].iloc[[0, 1]].itertuples(), strict=True):
        assert line.step.tolist() == [0, 1, 2]
        assert line.step_intersection[-1] == rows.at[line.episode, "intersection_foreground"]
        assert line.step_union[-1] == rows.at[line.episode, "union_foreground"]
        query, support, masks = pictures_of(data, listed, model.backbone.facts)
        adapted = adapt(model, support, masks, 2, 0.1)
        with torch.no_grad():
            maps = [adapted.model.features(p[None])[COARSE][-1] for p in (support[0], query)]
            maps = [weighted(adapted.model, adapted.model.chain(m))[0] for m in maps]
        assert line.cka == pytest.approx(analyses.support_query_cka(*maps), rel=1e-4)
        assert line.query_information == pytest.approx(analyses.mutual_information(maps[1]), rel=1e-4)
        assert line.support_chance == pytest.approx(analyses.chance_information(maps[0]), rel=1e-4)
        assert np.allclose(line.magnitudes, analyses.magnitudes(maps[1]), rtol=1e-4)
        assert np.allclose(line.phases, analyses.phase_histogram(maps[1]), atol=2e-4)
        assert not np.allclose(line.phases, analyses.phase_histogram(maps[0]), atol=2e-4)
        assert np.allclose(line.correlations, analyses.correlation_histogram(maps[1]), atol=2e-4)
        with torch.no_grad():
            of_both = [adapted.model.features(p[None])[COARSE] for p in (query, support[0])]
            of_both = [
                [weighted(adapted.model, adapted.model.chain(m))[0] for m in maps] for maps in of_both
            ]
        similar = analyses.similarity(*map(torch.stack, of_both), masks[0])
        assert np.allclose(line.similarity, similar.flatten(), atol=1e-4)
        assert np.allclose(line.activation, analyses.activation(maps[1]).flatten(), rtol=1e-4)
        factor = adapted.model.part("apm_m")["mask_phase"].sigmoid().mean((0, 1)).detach()
        assert line.factors.tolist() == ["amplitude", "phase"]
        assert np.allclose(line.factor_maps[1], factor.flatten(), atol=1e-6)
        assert (line.height, line.width) == (3, 3)


def test_the_baseline_is_measured_without_steps_and_masks(data, files, checkpoint, tmp_path):
    path = tmp_path / "features.parquet"
    settings = settings_of("baseline") | {"episodes": 100}
    found = measured(settings, files, checkpoint, path)
    assert len(found) == 4
    assert not found["factors"].str.len().any()
    assert [steps.tolist() for steps in found["step"]] == [[0]] * 4
    assert (found["similarity"].map(np.max) <= 1 + 1e-5).all()


def test_filtering_evaluates_nine_kinds_of_pictures(data, files, checkpoint, tmp_path):
    path = tmp_path / "filtered.parquet"
    settings = settings_of("baseline") | {"episodes": 2, "radius": 0.2, "fill": "zero"}
    measurement.filtering(settings, *files, checkpoint, None, path, COMPUTE)
    filtered = measurement.load([path])
    assert filtered.groupby("episode").size().eq(9).all()
    rows, _ = rows_of("baseline", checkpoint, data)
    plain = filtered[(filtered["amplitude"] == "all") & (filtered["phase"] == "all")].set_index("episode")
    for column in ("intersection_foreground", "union_background"):
        assert plain[column].to_dict() == rows.set_index("episode").loc[[0, 1], column].to_dict()
    model = method_of(settings, checkpoint).model
    facts = model.backbone.facts
    query, _, _ = pictures_of(data, data[1].iloc[0], facts)
    seen = analyses.filter_pictures(unnormalised(query[None], facts), "low", "all", 0.2, "zero")
    maps = model.features(normalised(seen, facts))[COARSE][-1][0]
    cell = filtered.set_index(["episode", "amplitude", "phase"]).loc[(0, "low", "all")]
    assert cell["query_information"] == pytest.approx(analyses.mutual_information(maps), rel=1e-4)
    assert cell["query_information"] != pytest.approx(plain.loc[0, "query_information"], rel=1e-4)


@pytest.mark.parametrize(
    ("class_id", "number", "shares"),
    [
        (np.arange(600) % 6, 60, [10] * 6),  # a step of 10 through the list would miss three classes
        (np.arange(600) % 3, 100, [34, 33, 33]),
        (np.arange(2400) // 10, 240, [1] * 240),
        (np.array([0, 0, 0, 0, 1, 2]), 4, [2, 1, 1]),
        (np.array([0, 1, 0]), 99, [2, 1]),
    ],
)
def test_every_class_is_measured_as_often_as_can_be(class_id, number, shares):
    listed = pd.DataFrame({"episode": np.arange(len(class_id)) + 5, "class_id": class_id})
    chosen = measurement.of_every_class(listed, number)
    assert chosen["class_id"].value_counts().sort_index().tolist() == shares
    assert chosen["episode"].is_monotonic_increasing


def test_more_classes_than_episodes_are_taken_at_even_distances():
    listed = pd.DataFrame({"episode": range(2400), "class_id": np.arange(2400) // 10})
    assert measurement.of_every_class(listed, 60)["class_id"].tolist() == list(range(0, 240, 4))


def test_maps_that_are_not_finite_have_no_numbers():
    maps = torch.rand(4, 3, 3)
    broken = maps.clone()
    broken[1, 0, 0] = torch.nan
    assert np.isnan(analyses.mutual_information(broken))
    assert np.isnan(analyses.chance_information(broken))
    assert np.isnan(analyses.support_query_cka(maps, broken))
    assert analyses.phase_histogram(broken).isnan().all()
    assert analyses.correlation_histogram(broken).isnan().all()


def test_curves_over_steps_begin_at_0_and_end_at_the_last_step():
    assert measurement.steps_to_show(0) == [0]
    assert measurement.steps_to_show(1) == [0, 1]
    shown = measurement.steps_to_show(60)
    assert (shown[0], shown[-1]) == (0, 60)
    assert len(shown) < 14
    assert shown == sorted(set(shown))


def test_pictures_survive_normalisation(checkpoint):
    facts = method_of(settings_of("baseline"), checkpoint).model.backbone.facts
    pictures = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(unnormalised(normalised(pictures, facts), facts), pictures, atol=1e-6)
