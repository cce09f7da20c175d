"""The part of a model card that the hub reads: https://huggingface.co/docs/hub/model-cards."""

from typing import Any

from lightning_modules.evaluation.statistics import wilson
from lightning_modules.export.card_facts import Card

TASK = "text-generation"
MORE_TAGS: dict[str, list[str]] = {"merged": [], "adapter": ["lora"], "gguf": ["gguf", "llama.cpp"]}


def hub_metadata(card: Card, kind: str) -> str:
    """Return the metadata of a merged model, an adapter or a GGUF file, as YAML.

    The model-index has the figures of `evaluate`; if there is no evaluation, those of the validation.
    """
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=one.asked.id,
            dataset_name=one.asked.name,
            dataset_config=one.asked.config,
            dataset_split=one.asked.split,
            dataset_revision=one.asked.revision,
            metric_type="accuracy",
            metric_name=f"right answers ({one.how})",
            metric_value=round(one.right, 4),
            metric_args={"questions": one.questions, "interval_95": [round(end, 4) for end in one.interval]},
        )
        for one in card.evaluations
    ]
    if not results and card.figures.get("answered") and "answer_match" in card.figures:
        asked, right = int(card.figures["answered"]), card.figures["answer_match"]
        results = [
            EvalResult(
                task_type=TASK,
                dataset_type=card.datasets[0] if len(card.datasets) == 1 else "heldout",
                dataset_name="held-out rows of the training data",
                dataset_split="validation",
                metric_type="accuracy",
                metric_name="right answers",
                metric_value=round(right, 4),
                metric_args={
                    "questions": asked,
                    "interval_95": [round(end, 4) for end in wilson(round(right * asked), asked)],
                },
            )
        ]
    more: dict[str, Any] = dict(card.license)
    if card.hub_base:
        more["base_model_relation"] = "adapter" if kind == "adapter" else "finetune"
    data = ModelCardData(
        language=list(card.languages) or None,
        library_name={"merged": "transformers", "adapter": "peft", "gguf": "gguf"}[kind],
        pipeline_tag=TASK,
        tags=["thinkwright", "reasoning", "think", *MORE_TAGS[kind]],
        datasets=list(card.datasets) or None,
        model_name=card.name if results else None,
        eval_results=results or None,
        base_model=card.hub_base,
        **more,
    )
    text: str = data.to_yaml(line_break="\n")
    return text
