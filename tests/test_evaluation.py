import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cdfss import CdfssError, adapt
from cdfss.backbones.normalisation import normalise
from cdfss.data import episodes
from cdfss.data.index import build as build_index
from cdfss.data.index import load as load_index
from cdfss.evaluation import evaluate, results
from cdfss.methods import calling
from cdfss.methods.contract import Given, Method, Prediction, Settings
from cdfss.methods.trivial import Copy

SIZE = 96
CPU = torch.device("cpu")
COMMON = {"domain": "mine", "variant": "v", "shot": 2, "seed": 0, "image_size": SIZE}
MODEL = {"precision": "float32", "method": "hsnet", "backbone": "efficientnet_lite0"}
TUNED = {"steps": 2, "learning_rate": 0.1, "trained": ["apm_s"], "pairs": "self", "reset": "episode"}
VARIANTS = {
    "baseline": {"modules": [], "steps": 0, "learning_rate": None},
    "apm_m_acpa": {"modules": ["apm_m", "acpa"], **TUNED, "trained": ["apm_m", "acpa"]},
    "leave_one_out": {"modules": ["apm_s"], **TUNED, "pairs": "leave_one_out"},
    "cumulative": {"modules": ["apm_s"], **TUNED, "reset": "never"},
    "fine_tuning": {
        "modules": [],
        **TUNED,
        "learning_rate": 1e-4,
        "trained": ["learner", "backbone"],
    },
}


def settings_of(variant):
    return COMMON | MODEL | {"settings": VARIANTS[variant]}


def method_of(settings, checkpoint, device=CPU):
    """HSNet as an evaluation job builds it."""
    given = Given(settings["image_size"], settings["seed"], device, settings["backbone"], None, checkpoint)
    return calling.build("hsnet", settings["settings"], given)


class Stand(Method):
    """A method that does what it is told for any batch."""

    batched = True

    def __init__(self, segment, device=CPU):
        super().__init__(Settings(), Given(SIZE, device=device))
        self.segment = segment

    def fit(self, pictures, masks):
        self.masks = masks

    def predict(self, pictures):
        return Prediction(self.segment(self.masks).astype(np.float32)[:, None])


def rows_of(variant, checkpoint, data, listed=None, at_once=1):
    settings = settings_of(variant)
    method = method_of(settings, checkpoint)
    listed = data[1] if listed is None else listed
    size = evaluate.BatchSize(method, 1)
    size.number = at_once  # a processor takes 1
    rows, _, masks = evaluate.evaluate(settings, data[0], listed, method, size)
    return pd.DataFrame(rows), masks


@pytest.mark.parametrize("variant", ["baseline", "apm_m_acpa", "leave_one_out", "fine_tuning"])
def test_any_slice_of_the_list_gives_the_same_rows(variant, checkpoint, data):
    whole, masks = rows_of(variant, checkpoint, data)
    for shards in (2, 3, len(whole) + 1):  # one of the last is empty
        listed = [episodes.shard(data[1], number, shards) for number in range(shards)]
        parts = [rows_of(variant, checkpoint, data, part) for part in listed]
        together = pd.concat([rows for rows, _ in parts if len(rows)], ignore_index=True)
        pd.testing.assert_frame_equal(together, whole)
        found = {episode: mask for _, part in parts for episode, mask in part.items()}
        assert found.keys() == masks.keys()
        assert all(np.array_equal(mask, masks[episode]) for episode, mask in found.items())
    backwards, _ = rows_of(variant, checkpoint, data, data[1].iloc[::-1])
    pd.testing.assert_frame_equal(backwards.iloc[::-1].reset_index(drop=True), whole)


def test_adaptation_through_the_list(checkpoint, data):
    """`reset: never`: as one long adaptation whose supports change, Adam's moments included."""
    settings = settings_of("cumulative")
    ours, _ = rows_of("cumulative", checkpoint, data)
    model = method_of(settings, checkpoint).model
    start = model.part("apm_s")["mask_phase"].clone()
    tuned, optimiser = model, None
    for row, episode in zip(ours.itertuples(), data[1].itertuples(), strict=True):
        pictures = [data[0].read(data[0].rows.loc[r], SIZE) for r in episode.support_rows]
        images, labels = (torch.from_numpy(np.stack([p[i] for p in pictures])) for i in (0, 1))
        images = normalise(images, model.backbone.facts)
        adapted = adapt(tuned, images, labels.float(), 2, 0.1, optimiser=optimiser)
        tuned, optimiser = adapted.model, adapted.optimiser
        assert row.first_loss == pytest.approx(adapted.losses[0].item())
        assert row.last_loss == pytest.approx(adapted.losses[1].item())
    assert optimiser.steps == 2 * len(ours)
    assert torch.equal(model.part("apm_s")["mask_phase"], start)
    anew, _ = rows_of("cumulative", checkpoint, data, data[1].iloc[1:])
    assert anew["first_loss"].tolist() != ours["first_loss"].tolist()[1:]


def test_first_weights_of_acpa_depend_on_the_seed_alone(checkpoint):
    def weights(seed):
        settings = settings_of("apm_m_acpa") | {"seed": seed}
        return method_of(settings, checkpoint).model.part("acpa")["squeeze"]

    torch.manual_seed(5)
    first = weights(0)
    torch.manual_seed(6)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


def test_rows_and_masks_survive_the_files(checkpoint, data, tmp_path):
    rows, masks = rows_of("apm_m_acpa", checkpoint, data)
    records = rows.to_dict("records")
    costs = [{key: row[key] for key in results.KEY} | {"seconds": 0.5, "device": "cpu"} for row in records]
    settings = settings_of("apm_m_acpa")
    facts = evaluate.origin(settings, *data, "rows")
    paths = [tmp_path / name for name in ("rows/r.parquet", "p.parquet", "c.parquet")]
    results.save(records, paths[0], facts)
    results.save_predictions(masks, paths[1], facts)
    results.save(costs, paths[2], facts, results.COST)
    loaded = results.load(tmp_path)
    assert results.with_cost(loaded, paths[2:])["seconds"].eq(0.5).all()
    assert loaded["intersection_foreground"].tolist() == rows["intersection_foreground"].tolist()
    assert [list(s) for s in loaded["supports"]] == rows["supports"].tolist()
    assert results.facts(tmp_path / "rows" / "r.parquet")["settings"] == settings_of("apm_m_acpa")
    again = results.load_predictions([tmp_path / "p.parquet"])
    assert all(np.array_equal(again[e], mask) for e, mask in masks.items())
    # Counts follow from the stored masks: nothing in a row is its own witness.
    for row in loaded.itertuples():
        truth = data[0].read(data[0].rows.loc[data[1].loc[row.episode, "query_row"]], SIZE)[1]
        assert row.intersection_foreground == (again[row.episode] & truth).sum()
        assert row.union_foreground == (again[row.episode] | truth).sum()
    # At the query's own 40 x 30 pixels: the mask enlarged as torch does, counted by hand.
    for row in loaded.itertuples():
        own = np.zeros((30, 40), bool)
        own[5:20, 10:25] = True
        enlarged = torch.tensor(again[row.episode])[None, None].float()
        enlarged = torch.nn.functional.interpolate(enlarged, own.shape)[0, 0].numpy() == 1
        assert row.original_intersection_foreground == (enlarged & own).sum()
        assert row.original_union_foreground == (enlarged | own).sum()
        assert row.original_intersection_background == (~enlarged & ~own).sum()
        assert row.original_union_background == (~enlarged | ~own).sum()


def test_scores_for_comparison_of_rows():
    def row(episode, class_id, shot, intersection, union, own=(1, 2)):
        counts = {"intersection_background": 9, "union_background": 10}
        counts |= {"intersection_foreground": intersection, "union_foreground": union}
        counts |= {"original_intersection_foreground": own[0], "original_union_foreground": own[1]}
        counts |= {"original_intersection_background": 0, "original_union_background": 0}
        return {"episode": episode, "class_id": class_id, "shot": shot, **counts}

    listed = [row(e, e % 2, 1, e % 2, 2, (1, 4) if e % 2 else (2, 4)) for e in range(100)]
    rows = pd.DataFrame(listed[::-1])  # in any order
    assert results.original_miou(rows) == pytest.approx(np.mean([2 / 4, 1 / 4]))
    # Batches of 96 both begin with class 0: background 0.9, and half of the unions.
    assert results.batchwise_miou(rows) == pytest.approx(np.mean([0.9, 0.25]))
    # Of 48, in a list whose episode 48 is of class 1.
    rows["shot"], rows["class_id"] = 5, np.where(rows["episode"] < 48, 0, 1)
    rows["intersection_foreground"] = np.where(rows["episode"] < 48, 1, 2)
    assert results.batchwise_miou(rows) == pytest.approx(np.mean([0.9, 0.5, 1]))
    rows.loc[3, "original_union_foreground"] = np.nan
    assert results.original_miou(rows) is None


@pytest.mark.parametrize("k", [1, 2, 5])
def test_trivial_predictors(k):
    generator = np.random.RandomState(0)
    queries, masks = np.zeros((3, 4, 6, 3), np.uint8), generator.rand(3, k, 4, 6) < 0.5
    given, supports = Given(6), np.zeros((3, k, 4, 6, 3), np.uint8)
    found = calling.segment("foreground", calling.build("foreground", {}, given), supports, masks, queries)
    assert found.masks.shape == (3, 4, 6)
    assert found.masks.all()
    assert found.losses.shape == (3, 0)
    copied = calling.segment("copy", calling.build("copy", {}, given), supports, masks, queries)
    assert (copied.masks == (2 * masks.sum(1) >= k)).all()
    assert np.allclose(copied.probabilities, masks.mean(1))


@pytest.mark.parametrize("variant", ["baseline", "apm_m_acpa", "leave_one_out"])
def test_episodes_at_once_give_the_rows_of_one_by_one(variant, checkpoint, data):
    alone, masks = rows_of(variant, checkpoint, data)
    together, batched = rows_of(variant, checkpoint, data, at_once=3)  # 4 episodes: 3 and 1
    for column in alone.columns:
        if "loss" in column and variant != "baseline":
            assert together[column].tolist() == pytest.approx(alone[column].tolist(), rel=1e-5)
        elif not column.startswith(("intersection", "union")):
            assert together[column].tolist() == alone[column].tolist()
    for episode, mask in masks.items():
        assert (batched[episode] != mask).mean() < 0.001


@pytest.mark.parametrize("vote", ["published", "majority", "mean"])
def test_rows_tell_votes_and_supports_that_no_module_sees(
    vote, checkpoint, settings, folder_data, tmp_path
):
    """Against each support's own prediction; in a batch and one by one; null for what does not count."""
    for number in range(4):  # between the positions of stride 32, at 0, 47.5 and 95 of 96 pixels
        small = np.pad(np.full((6, 6), 255, np.uint8), ((3, 21), (3, 31)))
        Image.fromarray(small).save(folder_data / "tree" / "masks" / f"{number}.png")
    build_index(settings(folder_data), tmp_path / "index.parquet", 1, lambda line: None)
    index = load_index(tmp_path / "index.parquet")
    listed = episodes.sample(index, split="test", shot=3, seed=0, number=6)
    settings = settings_of("baseline")
    settings = settings | {"settings": settings["settings"] | {"vote": vote}}

    def method():
        made = method_of(settings, checkpoint)
        with torch.no_grad():  # so that supports differ in what they call foreground, and it is little
            made.model.learner.decoder2[2].weight *= 50
            made.model.learner.decoder2[2].bias[0] += 1.33
        return made

    rows, _, found = evaluate.evaluate(settings, index, listed, method())
    size = evaluate.BatchSize(method(), 1)
    size.number = 3
    together = evaluate.evaluate(settings, index, listed, method(), size)[0]
    for name in ("most_votes", "voted_pixels", "supports_unseen"):
        assert [row[name] for row in together] == [row[name] for row in rows]
    unseen, published = [], method_of(settings_of("baseline"), checkpoint)
    published.model = method().model
    for row, episode in zip(rows, listed.itertuples(), strict=True):
        pictures = [index.read(index.rows.loc[r], SIZE) for r in (episode.query_row, *episode.support_rows)]
        query, *supports = [picture[0] for picture in pictures]
        masks = [picture[1] for picture in pictures[1:]]
        alone = [
            calling.segment("hsnet", published, *(array[None] for array in (s[None], m[None], query)))
            for s, m in zip(supports, masks)
        ]
        votes = sum(one.masks[0].astype(int) for one in alone)
        mean = sum(one.probabilities[0] for one in alone) / 3
        masks_of = {
            "published": 2 * votes >= max(1, votes.max()),
            "majority": votes >= 2,
            "mean": mean >= 0.5,
        }
        decided = (masks_of["published"] != masks_of["majority"]).sum()
        assert (found[row["episode"]] != masks_of[vote]).sum() <= 2  # pixels at a threshold
        assert row["most_votes"] == votes.max()
        assert row["voted_pixels"] == pytest.approx(decided, abs=2)
        unseen.append(sum(np.argwhere(m).max() < 47 for m in masks))
        assert row["supports_unseen"] == unseen[-1]
    assert {0, 2, 3} <= set(unseen)
    assert {1, 2} <= {row["most_votes"] for row in rows}
    assert max(row["voted_pixels"] for row in rows) > 9
    results.save(rows, tmp_path / "r.parquet", {"device": "cpu"})
    assert results.load(tmp_path / "r.parquet")["supports_unseen"].tolist() == unseen
    copied = {**COMMON, "method": "copy", "settings": {}}
    rows = evaluate.evaluate(copied, index, listed, Copy(Settings(), Given(SIZE)))[0]
    results.save(rows, tmp_path / "c.parquet", {"device": "cpu"})
    assert results.load(tmp_path / "c.parquet")[["most_votes", "supports_unseen"]].isna().all(axis=None)


def test_what_cannot_be_batched_is_not(checkpoint):
    for variant, expected in (("cumulative", 1), ("fine_tuning", 1), ("apm_m_acpa", 8)):
        method = method_of(settings_of(variant), checkpoint)
        for wanted in (8, "auto"):  # rows of a processor do not depend on it
            assert evaluate.BatchSize(method, wanted).number == 1
        method.given = Given(SIZE, device=torch.device("cuda"))
        assert evaluate.BatchSize(method, 8).number == expected
    through = Stand(None, torch.device("cuda"))
    through.settings = type("Through", (Settings,), {"goes_on": property(lambda self: True)})()
    assert evaluate.BatchSize(through, 8).number == evaluate.BatchSize(through, "auto").number == 1


def test_on_a_gpu_the_first_episode_tells_how_many_fit(monkeypatch, capsys):
    """The arithmetic alone, on numbers that stand for a GPU's."""
    numbers = {
        "memory_allocated": 10**9,  # the model
        "reset_peak_memory_stats": None,
        "max_memory_allocated": 3 * 10**9,  # with one episode
        "empty_cache": None,
        "mem_get_info": (20 * 10**9, 24 * 10**9),
    }
    for name, answer in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, a=answer: a)
    at_once = evaluate.BatchSize(Stand(None, torch.device("cuda")), "auto")
    assert at_once.number == 1
    at_once.begin()
    at_once.done()
    at_once.done()
    assert at_once.number == 5
    assert capsys.readouterr().out == "5 episodes at once (2.00 GB each)\n"


def test_a_batch_that_does_not_fit_is_halved_and_no_episode_is_lost(data, capsys):
    sizes = []

    def segment(masks):
        sizes.append(len(masks))
        if len(masks) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return masks[:, 0]

    at_once = evaluate.BatchSize(Stand(segment), 1)
    at_once.number = 4
    rows, *_ = evaluate.evaluate(settings_of("apm_m_acpa"), *data, Stand(segment), at_once)
    assert sizes == [4, 2, 1, 1, 1, 1]
    assert [row["query"] for row in rows] == data[1]["query"].tolist()
    assert "going on with 2" in capsys.readouterr().out
    with pytest.raises(CdfssError, match="with a single episode"):
        at_once.too_large(1, "too much")


def test_episodes_that_fit_into_memory():
    assert evaluate.that_fit(10 * 10**9, 10**9) == 5
    assert evaluate.that_fit(10**9, 10**9) == 1
    assert evaluate.that_fit(10**12, 10**9) == evaluate.MOST_AT_ONCE


def test_an_unreadable_picture_ends_the_evaluation_at_its_episode(checkpoint, data):
    loaded, listed = data
    (loaded.root / loaded.rows.loc[listed["query_row"].iloc[2], "image"]).write_bytes(b"no picture")
    with pytest.raises(CdfssError, match=r"\.jpg"):
        rows_of("baseline", checkpoint, data)


def test_predictors_without_a_model_open_no_picture(data, tmp_path):
    index, episodes = data
    settings = {"domain": "mine", "variant": "copy", "shot": 2, "seed": 0, "image_size": 32}
    settings |= {"method": "copy", "settings": {}}
    looking = type("Looking", (Copy,), {"looks": True})(Settings(), Given(32))
    read = evaluate.evaluate(settings, index, episodes, looking)
    for image in index.rows["image"]:
        (index.root / image).unlink()
    alone = evaluate.evaluate(settings, index, episodes, Copy(Settings(), Given(32)))
    assert read[0] == alone[0]
    assert all((read[2][episode] == mask).all() for episode, mask in alone[2].items())
