import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.folded_weights import FoldedWeights
from lightning_modules.generation.kv_cache import KVCache
from tests.lightning_modules.generation.conftest import MakeNet


def test_what_was_written_is_read_also_after_a_move(make_net: MakeNet, tiny_tokenizer: ThinkTokenizer) -> None:
    cache = KVCache(FoldedWeights(make_net(), len(tiny_tokenizer)), 3, 10)
    written = torch.randn(3, 4, 8)
    cache.write(1, torch.tensor([2, 0, 2]), torch.tensor([0, 0, 1]), written)
    key, value = cache.read(1, 3, 0, 2)
    assert torch.equal(key[2], written[[0, 2], :2].transpose(0, 1))
    assert torch.equal(value[0, :, 0], written[1, 2:])
    assert not cache.content[0].any()
    cache.move(2, 0, 2)
    assert torch.equal(cache.read(1, 1, 1, 2)[0][0, :, 0], written[2, :2])
    assert key.data_ptr() == cache.content[1].data_ptr(), "reading copies nothing"
