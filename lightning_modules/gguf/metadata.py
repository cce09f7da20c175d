"""What a GGUF file says of the model: name, license, base, data, and how to sample."""

from typing import TYPE_CHECKING, Any

from lightning_modules.export.card_facts import Card
from lightning_modules.gguf.tensor_types import GgufType

if TYPE_CHECKING:
    from gguf import GGUFWriter

HUB = "https://huggingface.co"


def write_metadata(writer: "GGUFWriter", card: Card, kind: GgufType, generation: Any) -> None:
    """Write the keys general.*. A base or a data set that only this machine has is not named.

    llama.cpp takes the sampling of `generation`, the generation config of the export, for its default.
    """
    from gguf import GGML_QUANT_VERSION, GGUFType, LlamaFileType

    writer.add_type(GGUFType.MODEL)
    writer.add_name(card.name)
    writer.add_tags(["thinkwright", "reasoning", "think", "text-generation"])
    writer.add_file_type(int(LlamaFileType[f"MOSTLY_{kind}"]))
    writer.add_quantization_version(GGML_QUANT_VERSION)
    for key, write in (
        ("license", writer.add_license),
        ("license_name", writer.add_license_name),
        ("license_link", writer.add_license_link),
    ):
        if key in card.license:
            write(card.license[key])
    if card.languages:
        writer.add_languages(card.languages)
    if card.hub_base:
        writer.add_base_model_count(1)
        owner, _, name = card.hub_base.rpartition("/")
        writer.add_base_model_name(0, name)
        if owner:
            writer.add_base_model_organization(0, owner)
        if card.revision:
            writer.add_base_model_version(0, card.revision)
        writer.add_base_model_repo_url(0, f"{HUB}/{card.hub_base}")
    if card.datasets:
        writer.add_dataset_count(len(card.datasets))
        for k, dataset in enumerate(card.datasets):
            writer.add_dataset_name(k, dataset.rpartition("/")[2])
            writer.add_dataset_repo_url(k, f"{HUB}/datasets/{dataset}")
    if generation.do_sample:
        writer.add_sampling_temp(generation.temperature)
        writer.add_sampling_top_k(generation.top_k)
        writer.add_sampling_top_p(generation.top_p)
        writer.add_sampling_min_p(0.0)
    else:
        writer.add_sampling_temp(0.0)
