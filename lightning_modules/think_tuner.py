"""ThinkTuner: the LightningModule. What a step computes, weighs, logs and saves; the net itself is in backbone.py."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from datamodules.batches.collate import Batch
from datamodules.text.tags import Tags
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from hub import model_folder
from lightning_modules.checkpoints.checkpoint_file import KEY, check_identity, identity
from lightning_modules.evaluation.metrics import Answered, RoleLoss, TagScores, from_all_ranks, think_scores
from lightning_modules.generation.answers import EvalSettings, answer_rows
from lightning_modules.generation.generate import generation_config
from lightning_modules.net.activation_checkpointing import check_checkpointing, checkpoint_activations
from lightning_modules.net.lora import LoraSettings, Start
from lightning_modules.net.loss import LossSettings
from lightning_modules.net.new_token_embeddings import NewTokenInit
from lightning_modules.net.quantize import Quantize, check_quantize
from lightning_modules.net.think_net import Dtype, LossSums, ThinkNet, load_base
from lightning_modules.update.nonfinite import Attempt, Gradients, propagate_nan
from lightning_modules.update.optim import OptimSettings, build_optimizer, lr_factor, restore_settings, settings_of


class ThinkTuner(LightningModule):
    """A causal LM that learns to think before it answers.

    Args:
        name: Folder or hub id of the base model.
        revision: Commit, tag or branch of the hub model; null takes the newest.
        dtype: What the base's weights are held in. What is trained is float32 in any case.
        lora: Adapters on a frozen base; null trains all weights.
        quantize: Hold the frozen base's linear layers in 4 bits a weight (nf4, by bitsandbytes); dtype is then what
            they compute in, and what the other weights are held in.
        from_scratch: Start from random weights of the base's architecture.
        gradient_checkpointing: Keep one activation per layer and compute the others again, in all layers or in so many:
            less memory, more time. `estimate --device_gb` tells how many layers a device asks for.
        lean: Let decoder layers of a frozen base keep less and pass over memory less often, to the same result. Those
            it does not know (not Qwen2's or Llama's; DoRA, dropout, 4 bits) are transformers' own; false: all are.
        loss: What is minimized.
        optim: Optimizer and learning rates.
        evaluation: What validation and test do beside the loss.
        tags: What opens and closes a thought; the same as data.tags.
        new_tokens: Further tokens that get rows of their own; the same as data.new_tokens.
        new_token_init: What the rows of tags that the base does not know start from: subtokens, the mean of the rows
            that stood for their text before; mean, that of all rows; random, anything like the other rows.
    """

    def __init__(
        self,
        name: str = "assets/tiny-qwen",
        revision: str | None = None,
        dtype: Dtype = "float32",
        lora: LoraSettings | None = LoraSettings(),  # noqa: B008 (read as the default of a nested config, never changed)
        quantize: Quantize | None = None,
        from_scratch: bool = False,
        gradient_checkpointing: bool | int = False,
        lean: bool = True,
        loss: LossSettings = LossSettings(),  # noqa: B008
        optim: OptimSettings = OptimSettings(),  # noqa: B008
        evaluation: EvalSettings = EvalSettings(),  # noqa: B008
        tags: Tags = Tags(),  # noqa: B008
        new_tokens: list[str] = [],  # noqa: B006
        new_token_init: NewTokenInit = "subtokens",
    ) -> None:
        super().__init__()
        if lora is not None:
            lora.check()
        if lora is None and dtype != "float32":
            fix = "set model.dtype float32, or model.lora to train adapters"
            raise UserError("model.dtype", dtype, "cannot hold weights that are trained", fix)
        if from_scratch and lora is not None:
            problem = "would leave random weights frozen under adapters"
            raise UserError("model.from_scratch", True, problem, "set model.lora null with it")
        check_quantize(quantize, lora, from_scratch)
        check_checkpointing(gradient_checkpointing)
        self.name, self.revision, self.dtype_name = name, revision, dtype
        self.lora, self.quantize, self.from_scratch = lora, quantize, from_scratch
        self.gradient_checkpointing, self.lean, self.loss, self.optim = gradient_checkpointing, lean, loss, optim
        self.evaluation, self.tags, self.new_tokens = evaluation, tags, tuple(new_tokens)
        self.new_token_init = new_token_init
        self.strict_loading = False  # checkpoints hold what is trained, not the base; on_load_checkpoint is the check
        self.train_loss, self.eval_loss, self.tag_scores = RoleLoss(), RoleLoss(), TagScores()
        self.answered: list[Answered] = []
        self.gradients = Gradients()
        self.speed: dict[str, float] = {}  # what throughput.py measured since the last log
        self.seed: int | None = None  # of dropout
        self.cancelled: Callable[[], bool] = lambda: False  # whether answers under way are still wanted
        self.optimizer_settings: list[dict[str, Any]] = []
        self.net: ThinkNet | None = None
        # Of the checkpoint that will be loaded, set before configure_model; else what configure_model finds
        self.lora_start: Start | None = None

    # Building

    def configure_model(self) -> None:
        """Loads the base and places what is trained. Lightning calls it before each fit, validate, test and predict."""
        if self.net is None:
            self.tokenizer = ThinkTokenizer.load(self.name, self.revision, self.tags, self.new_tokens)
            base = load_base(self.name, self.revision, self.dtype_name, self.from_scratch, self.quantize)
            checkpoint_activations(base, self.gradient_checkpointing)
            settings = self.evaluation.decoding
            self.net = ThinkNet(
                base, self.tokenizer, self.lora, self.new_token_init, self.loss, self.lora_start, self.lean
            )
            self.lora_start = self.net.lora_start
            self.generation_config = generation_config(
                self.tokenizer, self.net.vocabulary, base.generation_config, settings
            )
        mesh = self.device_mesh
        if mesh is not None:
            self.net.shard(mesh["data_parallel"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        assert self.net is not None
        # One kernel for all tensors. With a scaler Lightning would refuse to clip; sharded tensors were not tried
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        fused = self.device.type == "cuda" and scaler is None and self.device_mesh is None
        optimizer = build_optimizer(self.net.named_parameters(), self.optim, fused)
        total = self.total_steps()
        schedule = LambdaLR(optimizer, lambda step: lr_factor(step, total, self.optim))
        self.optimizer_settings = settings_of(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def total_steps(self) -> int:
        """Optimizer steps of the whole fit, from the data's plan. Asking `trainer.estimated_stepping_batches` instead
        would drop the loader's position on resume."""
        epochs, steps = self.trainer.max_epochs or -1, self.trainer.max_steps
        if epochs < 0 and steps < 0 and (self.optim.lr_scheduler_type != "constant" or self.optim.warmup_ratio):
            fix = "set trainer.max_epochs or trainer.max_steps"
            raise UserError(
                "model.optim.lr_scheduler_type", self.optim.lr_scheduler_type, "needs to know where training ends", fix
            )
        planned = epochs * self.trainer.datamodule.steps_per_epoch if epochs > 0 else steps  # type: ignore[attr-defined]
        return min(planned, steps) if steps > 0 else planned

    def on_train_start(self) -> None:
        """The optimizer's settings are the config's, not those in a checkpoint. And no step may be cut short: it would
        be weighed by the tokens of the whole one."""
        if isinstance(schedule := self.lr_schedulers(), LambdaLR):
            restore_settings(schedule, self.optimizer_settings)
        if self.seed is None:
            seed = int(os.environ.get("PL_GLOBAL_SEED") or torch.initial_seed())
            self.seed = int(self.trainer.strategy.broadcast(seed))
        batches, accumulate = self.trainer.num_training_batches, self.trainer.accumulate_grad_batches
        if batches % accumulate and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            fix = f"give a multiple of trainer.accumulate_grad_batches ({accumulate})"
            raise UserError("trainer.limit_train_batches", batches, "ends in the middle of an optimizer step", fix)

    # One step

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Every supervised token of an optimizer step weighs the same, wherever its batch and rank: the sum is divided
        by the tokens of the whole step; Lightning divides by the accumulated batches, DDP and FSDP by the ranks."""
        accumulate = self.trainer.accumulate_grad_batches
        if batch_idx % accumulate == 0:
            self.gradients.attempts = []
        seed = self._seed_dropout()
        sums: LossSums = self.net(batch)  # type: ignore[misc]
        self.gradients.attempts.append(Attempt(batch, seed, sums.total.detach()))
        self.train_loss.update(sums)
        return propagate_nan(sums.total) / batch.step_tokens * accumulate * self.trainer.world_size

    def _seed_dropout(self) -> int:
        """Dropout follows from (seed, batch, rank) alone, so that a resumed fit drops what it would have dropped."""
        assert self.seed is not None
        done = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        seed = int(np.random.SeedSequence([self.seed, done, self.global_rank]).generate_state(1, np.uint64)[0])
        torch.manual_seed(seed)
        return seed

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """One norm serves the log, clipping, and the check that stops before an update by what is not finite."""
        self.gradients.check_finite(self)  # the step before
        norm = self.gradients.norm(optimizer, self.trainer.global_step)
        self.gradients.check_finite(self, known_only=True)
        if gradient_clip_val and gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            self.gradients.clip(optimizer, norm, gradient_clip_val)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Logs train/loss, the mean per token since it was last logged, every log_every_n_steps optimizer steps."""
        step, every = self.trainer.global_step, int(self.trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches or step % every:
            return
        self.gradients.check_finite(self)
        figures = {f"train/{name}": float(value) for name, value in self.train_loss.compute().items()}
        self.train_loss.reset()
        figures |= {f"train/{name}": value for name, value in self.gradients.figures().items()}
        figures |= {f"train/{name}": value for name, value in self.speed.items()}
        figures["lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        for logger in self.loggers:
            logger.log_metrics(figures, step=step)
        self.log("loss", figures["train/loss"], prog_bar=True, logger=False)

    def on_train_end(self) -> None:
        self.gradients.check_finite(self)

    # Evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        sums: LossSums = self.net(batch)  # type: ignore[misc]
        self.eval_loss.update(sums)
        self.tag_scores.update(sums)
        wanted = [k for k, row in enumerate(batch.rows) if row < self.evaluation.rows]
        if self._any_rank(bool(wanted)):
            self.answered += self._answer(batch, wanted)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[dict[str, Any]]:
        """What the model writes for each row of the batch, ready to be written as JSON."""
        return [answered.as_json() for answered in self._answer(batch, list(range(len(batch.rows))))]

    def on_validation_epoch_start(self) -> None:
        self.gradients.check_finite(self)
        self.answered = []
        for metric in (self.eval_loss, self.tag_scores):  # of a validation that was broken off
            metric.reset()

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def _answer(self, batch: Batch, wanted: list[int]) -> list[Answered]:
        assert self.net is not None
        sharded = self.device_mesh is not None
        return answer_rows(self.net, self.tokenizer, self.generation_config, batch, wanted, self.cancelled, sharded)

    def _any_rank(self, mine: bool) -> bool:
        """Sharded ranks must generate together or not at all; others need not ask."""
        if self.device_mesh is None:
            return mine
        return bool(self.trainer.strategy.reduce(torch.tensor(float(mine), device=self.device), reduce_op="sum") > 0)

    def _log_evaluation(self, stage: str) -> None:
        computed = self.eval_loss.compute() | self.tag_scores.compute()
        figures = {f"{stage}/{name}": float(value) for name, value in computed.items()}
        self.answered = sorted(from_all_ranks(self.answered), key=lambda row: row.row)
        figures |= {f"{stage}/{name}": value for name, value in think_scores(self.answered).items()}
        for logger in self.loggers:  # self.log would write them one optimizer step too early
            logger.log_metrics(figures, step=self.trainer.global_step)
        for name, value in figures.items():  # equal on all ranks already; sync_dist only says so
            self.log(name, value, prog_bar=name == f"{stage}/loss", logger=False, sync_dist=True)

    # Checkpoints

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """Names and tensors of all that is trained."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Only what is trained; the base stays where it came from."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        keep = {kwargs.get("prefix", "") + name for name in self.trained()}
        for name in set(state) - keep:
            del state[name]
        return state

    def identity(self) -> dict[str, Any]:
        folder = model_folder(self.name, self.revision, weights=not self.from_scratch)
        return identity(folder, not self.from_scratch, self.tokenizer, self.lora)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.gradients.check_finite(self)
        known = self.identity() | {"quantize": self.quantize}
        ours: dict[str, Any] = checkpoint.setdefault(KEY, {})
        ours |= {"base": self.name, "revision": self.revision, "identity": known, "seed": self.seed}
        ours |= {"train_loss": self.train_loss.snapshot(), "skipped_steps": self.gradients.skipped}
        if self.lora_start is not None:
            ours["lora_start"] = self.lora_start

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint[KEY]
        check_identity(saved["identity"], saved["base"], self.identity())
        # Sharding strategies take state_dict out before they call this
        if "state_dict" in checkpoint and set(checkpoint["state_dict"]) != set(self.trained()):
            fix = "use the model settings that it was trained with"
            raise UserError("--ckpt_path", None, "the checkpoint holds other trained tensors than this model", fix)
        self.seed, self.gradients.skipped = saved["seed"], saved["skipped_steps"]
        ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        self.train_loss.restore(saved["train_loss"], self.global_rank if ranks > 1 else 0, ranks)
