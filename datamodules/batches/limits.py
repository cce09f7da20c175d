"""Lightning's limits on batches, checked against the plan of an epoch: before a model is loaded or a run begins."""

from lightning.pytorch import Trainer

from errors import UserError

Limit = int | float  # a whole number of batches, or a share of them


def used_batches(limit: Limit, planned: int) -> int:
    """The number of `planned` batches that a limit leaves."""
    return min(planned, limit) if isinstance(limit, int) else int(planned * limit)


def check_limits(trainer: Trainer, planned: int, accumulate: int, in_validation: int) -> None:
    """Raise UserError if a limit of the trainer leaves no batch, or ends an epoch in the middle of an optimizer step,
    or if the first validation would come after the end of the epoch.

    planned:       batches of a rank in an epoch
    accumulate:    batches in an optimizer step
    in_validation: batches of a rank in a validation
    """
    overfit: Limit = trainer.overfit_batches  # type: ignore[attr-defined]
    limited = "overfit_batches" if overfit else "limit_train_batches"
    limit: Limit = getattr(trainer, limited)
    used, key = used_batches(limit, planned), f"trainer.{limited}"
    if not used:
        problem = f"leaves none of the {planned:,} batches of an epoch"
        fix = f"give {accumulate} batches or more, or a share of {accumulate / planned:.2g}"
        raise UserError(key, limit, problem, fix)
    if used % accumulate and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        problem = f"leaves {used:,} batches, which end in the middle of an optimizer step of {accumulate:,}"
        lower, upper = used // accumulate * accumulate, (used // accumulate + 1) * accumulate
        choice = f"{lower:,} or {upper:,}" if lower else f"{upper:,}"
        raise UserError(key, limit, problem, f"give {choice} batches, or trainer.accumulate_grad_batches {used}")
    shown = overfit or trainer.limit_val_batches
    if shown and not used_batches(shown, in_validation):
        name = "overfit_batches" if overfit else "limit_val_batches"
        problem = f"leaves none of the {in_validation:,} batches of a validation"
        raise UserError(f"trainer.{name}", shown, problem, "give a number of batches, or lower data.val_batch_size")
    every = getattr(trainer, "val_check_interval", None)  # None: by time
    if type(every) is int and every > used and shown and trainer.check_val_every_n_epoch is not None:
        fix = "give less, or set trainer.check_val_every_n_epoch null to count the batches of all epochs"
        raise UserError("trainer.val_check_interval", every, f"is more than the {used:,} batches of an epoch", fix)
    watched = [name for one in trainer.callbacks if (name := str(getattr(one, "monitor", ""))).startswith("train/")]  # type: ignore[attr-defined]
    first = max(1, (min(every, used) if type(every) is int else int(used * (every or 1))) // accumulate)
    if watched and not trainer.fast_dev_run and trainer.log_every_n_steps > first:  # type: ignore[attr-defined]
        problem = f"comes after the first validation, at step {first:,}, where a callback needs {watched[0]}"
        raise UserError("trainer.log_every_n_steps", trainer.log_every_n_steps, problem, f"give {first:,} or less")  # type: ignore[attr-defined]
