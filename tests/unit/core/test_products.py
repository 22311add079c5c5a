"""Products by oneDNN against float64 and against torch's BLAS; the choice between them."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from nbg_lightning.core import LanguageModelConfig, ParallelConfig, create_model, linear_cross_entropy, products
from nbg_lightning.core.decode import Decoder
from nbg_lightning.core.lora_config import LoRAConfig

SHAPE = LanguageModelConfig(
    vocab_size=512,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
)
BIASED = LanguageModelConfig(**{**vars(SHAPE), "qkv_bias": True, "tie_word_embeddings": False})


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[True, False], ids=["onednn", "blas"])
def library(request, monkeypatch):
    monkeypatch.setattr(products, "_onednn", request.param)
    return request.param


@pytest.fixture
def undecided(monkeypatch):
    monkeypatch.setattr(products, "_onednn", None)


LARGE = [(1, 2048, 2048), (64, 256, 256), (300, 512, 256), (2, 40, 256, 512)]
SMALL = [(63, 256, 256), (1, 16, 16), (0, 256, 256), (2, 0, 256, 256)]  # left to torch's BLAS


@pytest.mark.parametrize("shape", [*LARGE, *SMALL])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_and_its_gradients_are_those_of_float64(library, shape, bias):
    *rows, inputs, outputs = shape
    x, weight = draw(*rows, inputs).requires_grad_(), draw(outputs, inputs, seed=1).requires_grad_()
    given = (x, weight, draw(outputs, seed=2).requires_grad_()) if bias else (x, weight)
    assert products.uses_onednn(x, weight) == (library and shape in LARGE)
    exact = tuple(tensor.detach().double().requires_grad_() for tensor in given)
    y, truth = products.linear(*given), F.linear(*exact)
    pull = draw(*truth.shape, seed=3)
    found = torch.autograd.grad(y, given, pull)
    right = torch.autograd.grad(truth, exact, pull.double())
    for one, other in zip((y, *found), (truth, *right), strict=True):
        assert one.shape == other.shape and one.dtype == torch.float32
        assert (one.double() - other).norm() <= 1e-6 * other.norm()


def test_products_in_place_and_of_views(library):
    """All layouts in which the heads and the decoder have their matrices."""
    x, weight = draw(70, 256), draw(300, 256, seed=1)
    exact = x.double() @ weight.double().t()
    wide = draw(70, 600)
    views = x, weight.t(), x.t().contiguous().t(), weight.t().contiguous(), wide[:, 100:400]
    row_major, by_columns, column_major, by_rows, target = views
    for left in (row_major, column_major):
        for right in (by_columns, by_rows):
            torch.testing.assert_close(products.multiply(left, right).double(), exact, rtol=1e-5, atol=1e-4)
            assert products.multiply_into(target, left, right) is target
            torch.testing.assert_close(target.double(), exact, rtol=1e-5, atol=1e-4)
            start = draw(70, 300, seed=2)
            added = products.add_product_(start.clone(), left, right)
            torch.testing.assert_close(added.double(), start.double() + exact, rtol=1e-5, atol=1e-4)


class Weights(TorchDispatchMode):
    """Notes the weights that oneDNN's operator gets."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.mkldnn._linear_pointwise.default:
            self.found.append(args[1])
        return func(*args, **(kwargs or {}))


def test_some_columns_of_a_wider_matrix(library):
    """oneDNN needs a thousand times as long for weights whose rows are apart in memory, forward and backward."""
    x, weight = draw(300, 600)[:, 100:356].requires_grad_(), draw(300, 600, seed=1)[:, :256].requires_grad_()
    exact = tuple(tensor.detach().double().requires_grad_() for tensor in (x, weight))
    y = products.linear(x, weight)
    found = torch.autograd.grad(y, (x, weight), draw(300, 300, seed=2))
    with Weights() as weights, torch.no_grad():
        products.multiply(x, weight.t())
        products.multiply(weight, x.t())
    assert len(weights.found) == (2 if library else 0)
    assert all(each.is_contiguous() or each.t().is_contiguous() for each in weights.found)
    truth = F.linear(*exact)
    right = torch.autograd.grad(truth, exact, draw(300, 300, seed=2).double())
    for one, other in zip((y, *found), (truth, *right), strict=True):
        assert (one.double() - other).norm() <= 1e-6 * other.norm()


def test_a_large_result_is_written_in_parts(library, monkeypatch):
    x, weight, out = draw(70, 256), draw(256, 300, seed=1), torch.empty(70, 300)
    whole = products.multiply_into(out, x, weight).clone()
    monkeypatch.setattr(products, "_LARGEST_COPY", 4 * 300 * 16)
    torch.testing.assert_close(products.multiply_into(out.zero_(), x, weight), whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_left_to_torch(monkeypatch, dtype):
    monkeypatch.setattr(products, "_onednn", True)
    x, weight = draw(300, 256).to(dtype), draw(256, 256, seed=1).to(dtype)
    assert not products.uses_onednn(x, weight)
    assert torch.equal(products.linear(x, weight), F.linear(x, weight))


@pytest.mark.parametrize(
    ("rows", "calls"), [((63,), 0), ((64,), 3), ((0,), 0), ((2, 32), 3)], ids=["63", "64", "none", "two of 32"]
)
def test_small_products_are_left_to_torch(monkeypatch, rows, calls):
    """The work decides, not the weight: a call costs as much as four million multiplications save, and no rows are no work."""
    monkeypatch.setattr(products, "_onednn", True)
    made, by_onednn = [], products._by_onednn
    monkeypatch.setattr(products, "_by_onednn", lambda *given: made.append(1) or by_onednn(*given))
    x, weight = draw(*rows, 256).requires_grad_(), draw(256, 256, seed=1).requires_grad_()
    y = products.linear(x, weight)
    y.sum().backward()
    assert y.shape == x.shape and x.grad.shape == x.shape and weight.grad.shape == weight.shape
    assert len(made) == calls  # forward, and the gradients of both


def loss_and_gradients(model):
    tokens = torch.randint(0, 512, (2, 65), generator=torch.Generator().manual_seed(0))
    labels, weights = tokens[:, 1:].flatten(), torch.full((128,), 1 / 128)
    model.zero_grad()

    def head(hidden, weight):
        return linear_cross_entropy(hidden.flatten(0, 1), weight, labels, weights).loss

    loss = model(tokens[:, :-1], head=head)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("shape", [SHAPE, BIASED], ids=["tied", "biases"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lora": LoRAConfig(rank=4)},
        {"parallel": ParallelConfig(compile=True)},
        {"parallel": ParallelConfig(activation_checkpointing="selective")},
        {"parallel": ParallelConfig(activation_checkpointing="full")},
    ],
    ids=["plain", "lora", "compiled", "selective", "full"],
)
def test_a_model_learns_the_same_by_both(monkeypatch, shape, options):
    model = create_model(shape, **options)
    found = []
    for choice in (True, False):
        monkeypatch.setattr(products, "_onednn", choice)
        found.append(loss_and_gradients(model))
    (loss, gradients), (other, others) = found
    torch.testing.assert_close(loss, other, rtol=1e-6, atol=0)
    assert gradients.keys() == others.keys() and gradients
    for name, gradient in gradients.items():
        assert (gradient - others[name]).norm() <= 1e-5 * others[name].norm() + 1e-9, name


def test_the_decoder_scores_the_same_by_both(monkeypatch):
    model = create_model(SHAPE)
    scores = []
    for choice in (True, False):
        monkeypatch.setattr(products, "_onednn", choice)
        with Weights() as weights:
            scores.append(torch.cat(Decoder(model).score([list(range(1, 100)), list(range(100, 150))])))
        assert bool(weights.found) == choice
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)


def test_the_operator_is_sound():
    """Schema, fake tensors, autograd registration and AOT dispatch."""
    x, weight = draw(3, 256).requires_grad_(), draw(256, 256, seed=1).requires_grad_()
    torch.library.opcheck(torch.ops.nbg.product, (x, weight))


@pytest.mark.parametrize(
    ("given", "speed_up", "choice"),
    [("auto", 2.0, True), ("auto", 1.1, False), ("blas", 2.0, False), ("onednn", 0.5, True)],
)
def test_the_choice(undecided, monkeypatch, given, speed_up, choice):
    monkeypatch.setenv(products.LIBRARY, given)
    monkeypatch.setattr(products, "speed_up", lambda: speed_up)
    products.choose_library()
    assert products._onednn is choice


def test_it_is_measured_once(undecided, monkeypatch):
    monkeypatch.delenv(products.LIBRARY, raising=False)
    measured = []
    monkeypatch.setattr(products, "speed_up", lambda: measured.append(1) or 2.0)
    create_model(SHAPE)
    create_model(SHAPE)
    assert len(measured) == 1
    assert products._onednn is True


def test_it_is_not_measured_with_fake_tensors(undecided):
    with torch._subclasses.FakeTensorMode():
        products.choose_library()
    assert products._onednn is None


def test_a_product_that_is_not_exact_is_not_used(undecided, monkeypatch):
    """As on a build of torch whose operator rounds to bfloat16."""
    monkeypatch.setattr(products, "_by_onednn", lambda x, w: F.linear(x.bfloat16(), w.bfloat16()).float())
    monkeypatch.delenv(products.LIBRARY, raising=False)
    products.choose_library()
    assert products._onednn is False
    monkeypatch.setattr(products, "_onednn", None)
    monkeypatch.setenv(products.LIBRARY, "onednn")
    with pytest.raises(ValueError, match="onednn"):
        products.choose_library()


def test_caches_are_filled_with_as_many_shapes_as_are_kept(library, monkeypatch):
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "5")
    with Weights() as weights, torch.no_grad():
        products.fill_caches()
    assert len(weights.found) == (5 if library else 0)


MANY_LENGTHS = """
import random, threading, torch
from nbg_lightning.core import products
torch.set_num_threads(1)
products.choose_library()
assert products._onednn
weight, drawn, resident = torch.randn(512, 512, requires_grad=True), random.Random(0), []
def train():
    for _ in range(400):
        products.linear(torch.randn(drawn.randint(1, 1000), 512, requires_grad=True), weight).sum().backward()
        lines = open("/proc/self/status").read().splitlines()
        resident.append(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")))

thread = threading.Thread(target=train)
thread.start()
thread.join()
print(resident[-1] - resident[99])
"""


def test_batches_of_many_lengths_take_no_more_memory():
    """In every thread. Without a bound on the kept shapes it is 300 to 400 MB more, and goes on."""
    environment = {**os.environ, products.LIBRARY: "onednn"}
    command = [sys.executable, "-c", MANY_LENGTHS]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 100_000  # KiB


def test_an_unknown_library_is_refused(undecided, monkeypatch):
    monkeypatch.setenv(products.LIBRARY, "mkl")
    with pytest.raises(ValueError, match="'mkl'"):
        create_model(SHAPE)


def test_the_measurement_is_a_ratio():
    assert 0.01 < products.speed_up() < 100
