"""ThinkTuner, the LightningModule: building, training step, evaluation and checkpoints. The net is in net/."""

import os
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from datamodules.batches.collate import Batch
from datamodules.text.tags import Tags
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.checkpoints.content import CONTENT_KEY, CheckpointContent
from lightning_modules.checkpoints.model_identity import ModelIdentity
from lightning_modules.checkpoints.start_weights import StartWeights
from lightning_modules.evaluation.answers import EvalSettings, HeldOutRow, answer_rows, held_out_rows, questions
from lightning_modules.evaluation.role_loss import RoleLoss, TagScores
from lightning_modules.evaluation.think_scores import AnsweredRow, think_scores
from lightning_modules.generation.decoding import Decoding, generation_config
from lightning_modules.internals.lightning_internals import batches_done
from lightning_modules.net.activation_checkpointing import checkpoint_activations
from lightning_modules.net.base_check import BaseCheck
from lightning_modules.net.base_model import Dtype, check_base, grow_vocabulary, load_base
from lightning_modules.net.lora import LoraSettings, LoraStart
from lightning_modules.net.loss import RoleWeights
from lightning_modules.net.new_token_embeddings import NewTokenInit
from lightning_modules.net.quantize import Quantize
from lightning_modules.net.think_net import LossSums, ThinkNet
from lightning_modules.ranks import from_all_ranks
from lightning_modules.run.fit_data import FitData
from lightning_modules.update.dropout import seed_dropout
from lightning_modules.update.nonfinite import Attempt, Gradients, propagate_nan
from lightning_modules.update.optim import (
    OptimSettings,
    build_optimizer,
    lr_factor,
    planned_steps,
    restore_settings,
    settings_of,
)


class ThinkTuner(LightningModule):
    """A causal LM that learns to think before it answers.

    Args:
        name: Base model: a folder, or an id on the Hugging Face hub.
        revision: Commit, tag or branch of a model on the hub. Default null, the newest; a commit makes runs repeatable.
        trust_remote_code: Run the Python code that a model's folder brings along. Default false: it may do anything.
        dtype: Dtype of a frozen base; trained weights are always float32. Default float32, for CPUs; on a GPU use
            float16 or bfloat16, like trainer.precision.
        lora: Adapters on a frozen base. null trains all weights, which takes several times the memory.
        quantize: nf4 holds a frozen base's linear layers with 4 bits per weight, by bitsandbytes. Default null, off.
            For a base that does not fit the GPU in half precision.
        start: Begin with the weights of a run (its best checkpoint, else its last), of a .ckpt file, or of the folder
            of an adapter; optimizer, schedule and rows are new. Default null: the base with new adapters.
        from_scratch: Start from random weights of the base's architecture. Default false. Needs model.lora null.
        gradient_checkpointing: Activation checkpointing, for less memory and more time: layers recompute their
            activations. Default false; true for all layers, or a number of layers (`estimate --device_gb` tells it).
        role_weights: Weights of tokens in the training loss, by role.
        optim: Optimizer and learning rates.
        evaluation: What validation and test do beside the loss.
        tags: Texts that open and close a thought. Linked to data.tags.
        new_tokens: Further tokens with embeddings of their own. Linked to data.new_tokens.
        new_token_init: Initial embeddings of new tokens. Default subtokens, the mean of the pieces that spelled the
            token before; mean, the mean of all embeddings; random, a draw with the mean and deviation of all.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        trust_remote_code: bool = False,
        dtype: Dtype = "float32",
        lora: LoraSettings | None = LoraSettings(),  # noqa: B008 (a default that is never changed)
        quantize: Quantize | None = None,
        from_scratch: bool = False,
        start: str | None = None,
        gradient_checkpointing: bool | int = False,
        role_weights: RoleWeights = RoleWeights(),  # noqa: B008
        optim: OptimSettings = OptimSettings(),  # noqa: B008
        evaluation: EvalSettings = EvalSettings(),  # noqa: B008
        tags: Tags = Tags(),  # noqa: B008
        new_tokens: list[str] = [],  # noqa: B006
        new_token_init: NewTokenInit = "subtokens",
    ) -> None:
        super().__init__()
        check_base(dtype, lora, from_scratch, quantize)
        self.name, self.revision, self.dtype_name = name, revision, dtype
        self.trust_remote_code = trust_remote_code
        self.lora, self.quantize, self.from_scratch, self.start = lora, quantize, from_scratch, StartWeights(start)
        self.gradient_checkpointing, self.role_weights, self.optim = gradient_checkpointing, role_weights, optim
        self.evaluation, self.tags, self.new_tokens = evaluation, tags, tuple(new_tokens)
        self.new_token_init = new_token_init
        self.strict_loading = False  # checkpoints hold only trained tensors; on_load_checkpoint checks their names
        self.train_loss, self.eval_loss, self.tag_scores = RoleLoss(), RoleLoss(), TagScores()
        self.asked: list[HeldOutRow] = []  # of this evaluation
        self.answered: list[AnsweredRow] = []
        self.evaluated: dict[str, float] = {}  # the figures of the last evaluation, with its stage in their names
        self.gradients = Gradients()
        self.speed: dict[str, float] = {}  # throughput since the last log, by run/throughput.py
        self.lr = 0.0  # of the last optimizer step; the optimizer has that of the next one
        self.seed: int | None = None  # of dropout
        self.cancelled: Callable[[], bool] = lambda: False  # True stops generation
        self.answer_progress: Callable[[int, int, int], None] = lambda total, ended, tokens: None
        self.optimizer_settings: list[dict[str, Any]] = []
        self.net: ThinkNet | None = None
        # Set before configure_model if a checkpoint will be loaded; else configure_model sets it
        self.lora_start: LoraStart | None = None
        self.extra_steps = 0  # optimizer steps of a resumed fit that are in no epoch as the epochs are divided now
        self.identity = ModelIdentity(self)

    # Building

    def setup(self, stage: str) -> None:
        data: FitData | None = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None:
            data.batches_done = lambda: batches_done(self.trainer)

    def configure_model(self) -> None:
        """Load the base and build the net. Lightning calls it before each fit, validate, test and predict."""
        if self.net is None:
            self.tokenizer = ThinkTokenizer.load(self.name, self.revision, self.tags, self.new_tokens)
            self.evaluation.decoding.check(self.tokenizer, "model.evaluation.decoding.")
            self.identity.values()  # of the files that are read now: they may change before the first checkpoint
            self.start.read(self)
            given = self.name, self.revision, self.dtype_name, self.from_scratch, self.quantize, self.trust_remote_code
            base = load_base(*given)
            grow_vocabulary(base, len(self.tokenizer))  # first, because added logits change the base's own loss
            check = BaseCheck(base, self.tokenizer, self.name)
            checkpoint_activations(base, self.gradient_checkpointing)
            net = ThinkNet(base, self.tokenizer, self.lora, self.new_token_init, self.role_weights, self.lora_start)
            check.check(net)
            self.net, self.lora_start = net, net.lora_start
            self.start.put_into(self, net)
            self.generation_config = generation_config(
                self.tokenizer, net.vocabulary, base.generation_config, self.evaluation.decoding
            )
            self.decoding = Decoding.of(self.tokenizer, base.generation_config, self.evaluation.decoding)
        if self.device_mesh is not None:
            self.net.shard(self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        assert self.net is not None
        # One kernel for all tensors. With a scaler Lightning refuses to clip; sharded tensors are not tested
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        fused = self.device.type == "cuda" and scaler is None and self.device_mesh is None
        optimizer = build_optimizer(self.net.named_parameters(), self.optim, fused)
        total = self.total_steps()
        schedule = LambdaLR(optimizer, lambda step: lr_factor(step, total, self.optim))
        self.optimizer_settings = settings_of(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def total_steps(self) -> int:
        """Return the optimizer steps of the whole fit. Lightning's own estimate would drop the loader's position."""
        return planned_steps(self.trainer, self.extra_steps, self.optim)

    def on_train_start(self) -> None:
        """Restore the optimizer's settings from the config."""
        if isinstance(schedule := self.lr_schedulers(), LambdaLR):
            restore_settings(schedule, self.optimizer_settings)
        if self.seed is None:
            self.seed = int(self.trainer.strategy.broadcast(os.environ.get("PL_GLOBAL_SEED") or torch.initial_seed()))

    # One step

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a micro-batch. Every supervised token of an optimizer step has the same weight.

        The sum is divided by the tokens of the whole step. Lightning divides by the number of accumulated batches, DDP
        and FSDP divide by the number of ranks; both factors are undone here.
        """
        accumulate = self.trainer.accumulate_grad_batches
        if batch_idx % accumulate == 0:
            self.gradients.attempts = []
        assert self.seed is not None
        seed = seed_dropout(self.seed, batches_done(self.trainer), self.global_rank)
        sums: LossSums = self.net(batch)  # type: ignore[misc]
        self.gradients.attempts.append(Attempt(batch, seed, sums.total.detach()))
        self.train_loss.update(sums)
        return propagate_nan(sums.total) / batch.step_tokens * accumulate * self.trainer.world_size

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Compute the gradient norm once, for the log, clipping and the check for values that are not finite."""
        self.gradients.check_finite(self)  # of the step before
        self.lr = optimizer.param_groups[0]["lr"]
        norm = self.gradients.norm(optimizer, self.trainer.global_step)
        self.gradients.check_finite(self, known_only=True)
        if gradient_clip_val and gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            self.gradients.clip(optimizer, norm, gradient_clip_val)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log train/loss, the mean per token since the last log, every log_every_n_steps optimizer steps."""
        step, every = self.trainer.global_step, int(self.trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches or step % every:
            return
        self.gradients.check_finite(self)
        computed = self.train_loss.compute() | self.gradients.figures() | self.speed
        self.train_loss.reset()
        figures = {f"train/{name}": float(value) for name, value in computed.items()} | {"lr": self.lr}
        for logger in self.loggers:
            logger.log_metrics(figures, step=step)
        for name, value in figures.items():  # for callbacks that watch one of them
            self.log(name, value, prog_bar=name == "train/loss", logger=False)

    def on_train_end(self) -> None:
        self.gradients.check_finite(self)

    # Evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        sums: LossSums = self.net(batch)  # type: ignore[misc]
        self.eval_loss.update(sums)
        self.tag_scores.update(sums)
        wanted = [k for k, index in enumerate(batch.indices) if index < self.evaluation.rows]
        self.asked += held_out_rows(batch, wanted)

    test_step = validation_step

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Any]:
        """Keep the rows: all are answered together, at the end."""
        self.asked += held_out_rows(batch, range(len(batch.indices)))
        return []

    def on_validation_epoch_start(self) -> None:
        self.gradients.check_finite(self)
        self.asked, self.answered = [], []
        for metric in (self.eval_loss, self.tag_scores):  # an interrupted validation leaves sums
            metric.reset()

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def on_predict_epoch_end(self) -> None:
        assert self.net is not None
        how = self.cancelled, self.answer_progress, self.device_mesh is not None
        own = answer_rows(self.net, self.tokenizer, self.decoding, self.asked, *how)
        self.answered = sorted(from_all_ranks(own), key=lambda row: row.row)

    def _log_evaluation(self, stage: str) -> None:
        self.asked = questions(self.asked)
        self.on_predict_epoch_end()
        computed = self.eval_loss.compute() | self.tag_scores.compute() | think_scores(self.answered)
        self.evaluated = figures = {f"{stage}/{name}": float(value) for name, value in computed.items()}
        for logger in self.loggers if not self.trainer.sanity_checking else ():  # a check of a few rows is no figure
            logger.log_metrics(figures, step=self.trainer.global_step)  # self.log would count one step less
        for name, value in figures.items():  # equal on all ranks; sync_dist avoids Lightning's warning
            self.log(name, value, prog_bar=name == f"{stage}/loss", logger=False, sync_dist=True)

    # Checkpoints

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """Return the trained parameters by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the trained tensors only. The base is named in the checkpoint, not copied."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        keep = {kwargs.get("prefix", "") + name for name in self.trained()}
        for name in set(state) - keep:
            del state[name]
        return state

    def checkpoint_content(self) -> CheckpointContent:
        """Return our part of a checkpoint, without a position in a fit. Every rank must call it."""
        self.gradients.check_finite(self)
        return CheckpointContent(
            base=self.name, revision=self.revision, identity=self.identity.values(), seed=self.seed,
            train_loss=self.train_loss.snapshot(), skipped_steps=self.gradients.skipped, lora_start=self.lora_start,
            parents=self.start.parents,
        )  # fmt: skip

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if CONTENT_KEY not in checkpoint:  # else CheckpointCallback has added it, with a position
            checkpoint[CONTENT_KEY] = self.checkpoint_content().to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        content = CheckpointContent.of(checkpoint)
        self.identity.check(content)
        # Sharding strategies remove state_dict before they call this
        if "state_dict" in checkpoint and set(checkpoint["state_dict"]) != set(self.trained()):
            fix = "use the model settings that it was trained with"
            raise UserError("--ckpt_path", None, "the checkpoint holds other trained tensors than this model", fix)
        self.seed, self.gradients.skipped, self.start.parents = content.seed, content.skipped_steps, content.parents
        ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        self.train_loss.restore(content.train_loss, self.global_rank if ranks > 1 else 0, ranks)
