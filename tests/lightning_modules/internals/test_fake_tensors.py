"""The private APIs of torch behind the dry run. These tests fail if a release of torch changes them."""

import torch

from lightning_modules.internals.torch_internals import fake_tensors, observe_results


def test_fake_tensors_have_shapes_and_no_memory_and_work_with_real_constants() -> None:
    with fake_tensors():
        huge = torch.empty(10**6, 10**6, dtype=torch.bfloat16)  # 2 TB
        product = huge @ huge.T
    assert (product.shape, product.dtype, product.device.type) == ((10**6, 10**6), torch.bfloat16, "cpu")
    constant = torch.ones(3)
    with fake_tensors():
        assert (torch.empty(2, 3) * constant).shape == (2, 3)


def test_results_of_forward_and_backward_operations_are_observed_in_lists_too() -> None:
    seen: list[tuple[int, ...]] = []
    weight = torch.ones(3, 5, requires_grad=True)
    with observe_results(lambda tensor: seen.append(tuple(tensor.shape))):
        out = torch.ones(2, 3) @ weight
        torch.split(out.detach(), 1)
        out.sum().backward()  # type: ignore[no-untyped-call]
    assert seen.count((2, 5)) >= 2  # the product and the gradient of the sum
    assert seen.count((1, 5)) == 2  # both parts of the split
    assert (3, 5) in seen  # the gradient of the weight
    before = len(seen)
    torch.ones(4)
    assert len(seen) == before


def test_fake_storages_can_be_observed_until_they_are_freed() -> None:
    import weakref

    with fake_tensors():
        tensor = torch.empty(10)
        reference = weakref.ref(tensor.untyped_storage())
        assert tensor.untyped_storage().nbytes() == 40
        assert reference() is tensor.view(2, 5).untyped_storage()
        del tensor
        assert reference() is None
