"""Titles and captions of all tables and figures, in the order they are shown. Quick to import."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A table or figure of the run.

    Attributes:
        title: content first.
        paper: what of the paper it corresponds to; empty for ours.
        needs: what it is made from: keys of `Shown.by_subject` (rows of those variants,
            where "cost" brings seconds besides), "features" and "filtered" (measurements), "index" (to
            read pictures).
        caption: what is shown, and how it is to be read.
    """

    title: str
    paper: str
    needs: tuple[str, ...]
    caption: str = ""

    @property
    def heading(self) -> str:
        return f"{self.title} (paper {self.paper})" if self.paper else self.title


TABLES = {
    1: Entry("mIoU of the baseline and of each frequency module", "tables 2, 3, 10", ("main",)),
    2: Entry(
        "mIoU of inserted modules: untuned, tuned in every episode, tuned through the list; ACPA "
        "alone; the baseline with other rules for votes; predictors without a model",
        "",
        ("insertion",),
    ),
    3: Entry(
        "Mutual information of channels on filtered pictures and after APM",
        "tables 1, 6",
        ("filtered", "features"),
    ),
    4: Entry("Distance of support and query features, 1 − CKA", "table 7", ("features",)),
    5: Entry("mIoU against full fine-tuning and a mutual-information loss", "table 5", ("alternatives",)),
    6: Entry("What each variant costs: mIoU, source training, parameters, time and memory", "", ("cost",)),
    7: Entry("mIoU of modules in a transformer, FPTrans", "table 4", ("transformer",)),
    8: Entry("mIoU against other frequency methods in APM's place", "table 8", ("frequency",)),
    9: Entry("mIoU against channel-correlation methods in APM's place", "table 9", ("correlation",)),
}
# What a variant is, for the tables that are about one kind.
KINDS = {
    "trivial": "predictors without a model",
    "baseline": "the source model as it is",
    "vote": "the baseline with another rule for votes",
    "inserted": "modules inserted, not tuned",
    "attention": "ACPA alone, tuned",
    "modules": "APM tuned in every episode",
    "frequency": "other frequency methods in APM's place",
    "correlation": "channel-correlation methods in APM's place",
    "transformer": "FPTrans as it is",
    "transformer_modules": "FPTrans with modules",
    "own": "modules of one's own",
    "cumulative": "modules tuned through the list, no reset",
    "fine_tuning": "learner or backbone tuned",
    "information": "mutual information in the loss",
    "other": "other methods",
}
ONE_LIST = "The first of `shots`, `seeds` and `source.seeds`."
FIGURES = {
    "filtering": Entry(
        "mIoU on pictures with filtered amplitude and phase",
        "figure 1",
        ("filtered",),
        "mIoU (%) of the source model when all, the high or the low frequencies of the amplitude (rows) "
        "and the phase (columns) of support and query pictures are kept. Colour: difference from no "
        "filter; star: p below 0.05, adjusted by Holm for all differences of all domains here. In "
        "brackets the paper's values, where they are shown. The radius and the filling are settings "
        "(analysis.radius, analysis.fill). " + ONE_LIST,
    ),
    "channel_magnitudes": Entry(
        "Mean magnitude of the channels, sorted",
        "figure 2",
        ("features",),
        "Mean absolute value of each channel of the query's last stride-32 map over its positions, "
        "divided by the mean of all channels. Ranks are those of other episodes than the values: each half "
        "of the episodes is sorted by the other one, so that channels that differ by chance alone lie flat "
        "at 1. Neighbouring ranks in 48 groups. Shaded: 95 % interval of the mean. " + ONE_LIST,
    ),
    "phase_differences": Entry(
        "Phase differences between channels",
        "figures 3, 8",
        ("features",),
        "Differences of two channels' phases at the same frequency in 50 bins from 0 to π, weighted by a "
        "b / |a − b| of their amplitudes and divided by an even spread (1). Shaded: 95 % interval "
        "of the mean. " + ONE_LIST,
    ),
    "channel_correlations": Entry(
        "Correlation between channels",
        "figure 6",
        ("features",),
        "Share of channel pairs whose absolute correlation over the positions of the query's last "
        "stride-32 map is at most x. Higher curves: channels that share less. Shaded: 95 % interval "
        "of the mean. " + ONE_LIST,
    ),
    "heat_maps": Entry(
        "Heat maps of the deepest features",
        "figure 7",
        ("features", "index"),
        "Support and query of the median episode by the first variant's IoU; all maps are the query's. "
        "Activation: mean absolute value over channels, each map from its smallest to its largest value. "
        "Similarity: largest cosine similarity of a position with the support's foreground, mean over the "
        "stride-32 maps, 0 to 1 in all. White: outline of the truth. Similarity is 0 throughout where no "
        "position of stride 32 lies inside the support mask, which large objects can miss too. " + ONE_LIST,
    ),
    "learnt_masks": Entry(
        "Learnt masks",
        "figure 9",
        ("features",),
        "Factors that a module puts on frequencies (APM on amplitude and phase) after the last step, mean "
        "over episodes (and channels for APM-M); lowest frequency in the centre. Raw: 0 to 1 in all, "
        "untrained they are 0.731. Stretched: from the smallest to the largest value, which stand above. "
        + ONE_LIST,
    ),
    "iou_by_step": Entry(
        "mIoU against adaptation step",
        "",
        ("features",),
        "Paired difference of mIoU from the baseline on the same analysed episodes, on the way of the "
        "adaptation; the baseline's own mIoU stands above. Step 0 is insertion alone. Shaded: 95 % "
        "intervals of the differences. Without a baseline: mIoU itself. " + ONE_LIST,
    ),
    "iou_by_learning_rate": Entry(
        "mIoU against learning rate",
        "",
        ("rates",),
        "Paired difference of mIoU from the baseline, whose own mIoU stands above, of variants that differ "
        "in their learning rate alone. Bars: 95 % intervals of the differences. Filled: the main variant's "
        "rate, which the paper sets by hand for each domain. Broken line: a rate chosen in each episode "
        "from its supports. The first of `shots`, all `seeds`.",
    ),
    "iou_by_seconds": Entry(
        "mIoU against seconds an episode",
        "",
        ("cost",),
        "Mean over the domains against the median of the seconds that an episode takes, fitting and "
        "prediction, log scale. Filled: needs no source training; open: needs it. Bars: 95 % intervals. "
        "The source training's own time is not in it; other jobs may have shared the machine. All `seeds`.",
    ),
    "class_iou": Entry(
        "IoU of each class",
        "",
        ("main",),
        "Foreground IoU of each class, counts summed over its episodes, mean over `seeds` and over "
        "`source.seeds`. More than twelve classes are drawn by rank, for each variant by its own. Bars: "
        "95 % intervals of named classes; a rank has none, since it is another class for each variant and "
        "list.",
    ),
    "paired_episodes": Entry(
        "IoU of every episode against the baseline's",
        "",
        ("main",),
        "Each point is an episode: its foreground IoU with the baseline and with the variant. Shares of "
        "episodes that are better, worse and the same; same (grey): less than 0.1 points or one pixel "
        "apart. The first of `seeds`.",
    ),
}
EPISODE_GRID = Entry(
    "Episodes: worst, median and best",
    "figure 5",
    (),
    "Worst, median and best episode by the first variant's IoU, not chosen by hand: first support with "
    "its mask, query with ground truth, prediction of each main variant that looks at pictures. The first "
    "of `seeds` and of `source.seeds`.",
)
TRAINING_HISTORY = Entry(
    "Source training",
    "",
    (),
    "Loss and 1-shot mIoU of the source training by epoch, a row for each host, a curve for each of "
    "`source.seeds`. The epoch with the best validation mIoU is the checkpoint that evaluations use.",
)


def words(class_name: str) -> str:
    """A class's name, that of a file or folder as a rule, as words."""
    return class_name.replace("_", " ")


def figure(name: str, settings: dict) -> tuple[Entry, str]:
    """Entry of a figure by the name of its file, and what of it this one shows ("" if all)."""
    if name.startswith("episodes-"):
        domain, shot = name.removeprefix("episodes-").rsplit("-", 1)
        return EPISODE_GRID, f": {settings['domains'][domain]}, {shot.replace('shot', '-shot')}"
    return (TRAINING_HISTORY if name == "training_history" else FIGURES[name]), ""
