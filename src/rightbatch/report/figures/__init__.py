"""The figures of the page, in its order. Another one is a file with its three functions, and an entry here."""

from __future__ import annotations

from rightbatch.report.figures.figure import Figure, predicted, to_target
from rightbatch.report.figures.frontier import draw_frontier, frontier_data, has_knee, tell_frontier
from rightbatch.report.figures.frontier import has_law as has_law_of_steps
from rightbatch.report.figures.gradients import draw_noise, noise_data, tell_noise
from rightbatch.report.figures.growing import can_grow, draw_growing, growing_data, tell_growing
from rightbatch.report.figures.minima import (
    draw_path,
    draw_sharpness,
    path_data,
    sharpness_data,
    tell_path,
    tell_sharpness,
)
from rightbatch.report.figures.rates import draw_rates, rates_data, tell_rates
from rightbatch.report.figures.stopping import can_stop_early, draw_stopping, stopping_data, tell_stopping
from rightbatch.report.figures.sweet_spot import (
    draw_step_time,
    draw_steps,
    draw_sweet_spot,
    has_law,
    has_zones,
    step_time_data,
    steps_data,
    sweet_spot_data,
    tell_step_time,
    tell_steps,
    tell_sweet_spot,
)
from rightbatch.report.figures.temperature import draw_temperature, tell_temperature, temperature_data
from rightbatch.report.figures.thoma import (
    draw_epoch,
    draw_gap,
    draw_quality,
    draw_target,
    epoch_data,
    gap_data,
    quality_data,
    target_data,
    tell_epoch,
    tell_gap,
    tell_quality,
    tell_target,
)

FIGURES: tuple[Figure, ...] = (
    Figure(
        "sweet-spot",
        "The sweet spot",
        (
            "Cost of the best rate at each batch size, with 95 % intervals.",
            ("Dashed: what the fitted laws give.", has_law),
            ("Shaded: sizes that cost more than twice the best.", has_zones),
            "Dotted: 10 % above the best.",
            ("Hollow: predicted by the search, not trained to the target.", predicted),
        ),
        sweet_spot_data,
        draw_sweet_spot,
        tell_sweet_spot,
        varies="target",
    ),
    Figure(
        "frontier",
        "The frontier: steps against examples",
        (
            "Each point a batch size, larger ones to the lower right: fewer steps for more examples.",
            ("Dashed: the law (S / S_min - 1)(E / E_min - 1) = 1.", has_law_of_steps),
            ("Diamond: its knee, the critical batch size.", has_knee),
            ("Hollow: predicted.", predicted),
        ),
        frontier_data,
        draw_frontier,
        tell_frontier,
        varies="target",
        applies=to_target,
    ),
    Figure(
        "steps",
        "Steps to the target",
        (
            "Larger batches need fewer steps, up to a point. Dotted: the choice.",
            ("Dashed: S_min (1 + B_crit / B).", has_law_of_steps),
            ("Hollow: predicted.", predicted),
        ),
        steps_data,
        draw_steps,
        tell_steps,
        varies="target",
        applies=to_target,
    ),
    Figure(
        "step-time",
        "Seconds per step",
        (
            "Each repeat a dot. Dotted: the choice.",
            ("Dashed: max(floor, alpha + beta B).", lambda sheet, rows: sheet.answer.step_time is not None),
            "Steps times this is the cost above.",
        ),
        step_time_data,
        draw_step_time,
        tell_step_time,
        measure="profile",
    ),
    Figure(
        "growing",
        "A batch that grows while training",
        "Blue: the fixed sizes, each at its best rate. A line: a plan that was tried, from its first to its last batch "
        "size, at its cost; dashed where it was given up, as dearer than the best. Green: the best plan, by fresh "
        "seeds.",
        growing_data,
        draw_growing,
        tell_growing,
        measure="find --schedule",
        applies=can_grow,
    ),
    Figure(
        "epoch",
        "Time per epoch",
        "Training seconds for one pass over the data, without evaluation. Dotted: the choice.",
        epoch_data,
        draw_epoch,
        tell_epoch,
        measure="profile",
    ),
    Figure(
        "target",
        "Time to the target",
        "Each run at the best rate of its size is a dot. Dotted: the choice.",
        target_data,
        draw_target,
        tell_target,
        varies="target",
        applies=to_target,
    ),
    Figure(
        "quality",
        "Quality",
        "Each run at the best rate of its size, at its best validation metric; without those that were left on their "
        "way. Dotted: the choice.",
        quality_data,
        draw_quality,
        tell_quality,
    ),
    Figure(
        "rates",
        "Learning rate against batch size",
        "Every rate that was tried, the darker the better. Missed: ended, or was given up, short of the target; left "
        "off: paused on the way, and not needed any more. Black: the best rate of each size with its interval. Green: "
        "through the choice, the linear rule (dashed) and the square-root rule (dotted).",
        rates_data,
        draw_rates,
        tell_rates,
        varies="judged_by",
    ),
    Figure(
        "stopping",
        "What early stopping would have done",
        "In each square, of the runs that reached the target, the share (%) that a patience would have stopped before "
        "they did, by the values at their evaluations. Ring: the size whose runs would have been the cheapest, of the "
        "rates of which it would have stopped no run.",
        stopping_data,
        draw_stopping,
        tell_stopping,
        varies="patience_in",
        applies=can_stop_early,
    ),
    Figure(
        "gap",
        "The generalization gap",
        "Validation loss less training loss, each run at the best rate of its size where its validation loss was best; "
        "without those that were left on their way. Dotted: the choice.",
        gap_data,
        draw_gap,
        tell_gap,
    ),
    Figure(
        "sharpness",
        "Sharpness of the minima",
        "Rise of the loss in a box about the weights that a run ended with, over 1 + loss (Keskar et al. 2017), each "
        "measured run a dot; grey: at another rate than the best of its size. It grows and shrinks with how weights "
        "are scaled: compare runs of one model.",
        sharpness_data,
        draw_sharpness,
        tell_sharpness,
        measure="sharpness {study}",
    ),
    Figure(
        "path",
        "Between two minima",
        "The loss along the straight line through the weights of two runs, and along an arc. Batch normalisation takes "
        "the statistics of each pass.",
        path_data,
        draw_path,
        tell_path,
        measure="sharpness {study} --path {pair}",
    ),
    Figure(
        "temperature",
        "Batch size and rate as a temperature",
        "Energy of the iterates of SGD that goes on at the rate of a run, over that of the posterior (Mandt et al. "
        "2017): rate x N x tr(Sigma) / (2 x batch size x parameters), with 95 % intervals; grey: as the training loss "
        "shows it.",
        temperature_data,
        draw_temperature,
        tell_temperature,
        measure="posterior",
    ),
    Figure(
        "noise",
        "The gradient noise scale along a training",
        "tr(Sigma) / |G|^2 in examples, with 95 % intervals; triangle: nothing bounds it above. Batches well below it "
        "waste hardly any examples.",
        noise_data,
        draw_noise,
        tell_noise,
        measure="noise",
    ),
)
