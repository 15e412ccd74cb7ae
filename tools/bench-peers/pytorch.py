"""PyTorch on the works of bench:peers, written out plainly: prints one JSON line, {work: {wall, cpu}} in milliseconds.

usage: pytorch.py THREADS SECONDS plain|auto_LiRPA WORK...
With auto_LiRPA the bounds are that library's, as verifiably robust training uses it. The network is the paper's small one (conv 16,4,2,1 - conv 32,4,2,1 - fc 100 - fc 10); a step is forward, backward and Adam.
"""
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F

THREADS, SECONDS, LIBRARY, WORKS = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]
torch.set_num_threads(THREADS)
torch.manual_seed(0)
BATCH, EPSILON = 50, 0.3

conv1, conv2 = torch.nn.Conv2d(1, 16, 4, 2, 1), torch.nn.Conv2d(16, 32, 4, 2, 1)
fc1, fc2 = torch.nn.Linear(1568, 100), torch.nn.Linear(100, 10)
parameters = [p for m in (conv1, conv2, fc1, fc2) for p in m.parameters()]
optimizer = torch.optim.Adam(parameters, lr=1e-4)
x, y = torch.rand(BATCH, 1, 28, 28), torch.arange(BATCH) % 10
large, labels = torch.rand(100, 1, 28, 28), torch.arange(100) % 10
a, b = torch.rand(512, 512), torch.rand(512, 512)


def network(v):
    v = F.relu(conv2(F.relu(conv1(v))))
    return fc2(F.relu(fc1(v.flatten(1))))


def update(loss):
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def affine(layer, c, r):
    """Centre and radius of a linear layer's output."""
    if isinstance(layer, torch.nn.Linear):
        return F.linear(c, layer.weight, layer.bias), F.linear(r, layer.weight.abs())
    return layer(c), F.conv2d(r, layer.weight.abs(), None, layer.stride, layer.padding)


def rectify(c, r):
    lower, upper = F.relu(c - r), F.relu(c + r)
    return (upper + lower) / 2, (upper - lower) / 2


def box():
    lower, upper = (x - EPSILON).clamp(0, 1), (x + EPSILON).clamp(0, 1)
    return (upper + lower) / 2, (upper - lower) / 2


def hidden_intervals():
    """Centre and radius before each ReLU."""
    c, r = box()
    before = []
    for layer in (conv1, conv2, fc1):
        c, r = affine(layer, c.flatten(1) if layer is fc1 else c, r.flatten(1) if layer is fc1 else r)
        before.append((c, r))
        c, r = rectify(c, r)
    return before, c, r


def margins():
    """[9, n, 10]: rows z_y - z_j, j != y."""
    rivals = torch.tensor([[j for j in range(10) if j != k] for k in y.tolist()]).t()
    return F.one_hot(y, 10).float().unsqueeze(0) - F.one_hot(rivals, 10).float()


SPEC = margins()


def robust_loss(lower):
    """Mean cross-entropy of the worst-case logits; lower: [9, n]."""
    return torch.logsumexp(torch.cat([torch.zeros(1, BATCH), -lower]), 0).mean()


def ibp():
    """Lower bounds of the margins, [9, n], by intervals."""
    _, c, r = hidden_intervals()
    rows = SPEC @ fc2.weight
    return (rows * c).sum(2) - (rows.abs() * r).sum(2) + SPEC @ fc2.bias


def crown_ibp():
    """Lower bounds of the margins, [9, n], by a backward walk over intervals of the hidden layers."""
    before, _, _ = hidden_intervals()
    rows, offset = SPEC @ fc2.weight, SPEC @ fc2.bias

    def relax(rows, c, r):
        lower, upper = c - r, c + r
        up = F.relu(upper) / torch.clamp(F.relu(upper) - torch.clamp(lower, max=0), min=1e-12)
        low = (up > 0.5).float()
        positive, negative = rows.clamp(min=0), rows.clamp(max=0)
        shift = (negative * (-up * torch.clamp(lower, max=0))).flatten(2).sum(2)
        return positive * low + negative * up, shift

    rows, shift = relax(rows, *before[2])
    offset = offset + shift + rows @ fc1.bias
    rows = (rows @ fc1.weight).reshape(9, BATCH, 32, 7, 7)
    rows, shift = relax(rows, *before[1])
    offset = offset + shift + (rows.sum((3, 4)) @ conv2.bias)
    rows = F.conv_transpose2d(rows.flatten(0, 1), conv2.weight, None, 2, 1).reshape(9, BATCH, 16, 14, 14)
    rows, shift = relax(rows, *before[0])
    offset = offset + shift + (rows.sum((3, 4)) @ conv1.bias)
    rows = F.conv_transpose2d(rows.flatten(0, 1), conv1.weight, None, 2, 1).reshape(9, BATCH, 1, 28, 28)
    c, r = box()
    return (rows * c).flatten(2).sum(2) - (rows.abs() * r).flatten(2).sum(2) + offset


def lirpa():
    """The same two by auto_LiRPA."""
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm

    model = torch.nn.Sequential(
        conv1, torch.nn.ReLU(), conv2, torch.nn.ReLU(), torch.nn.Flatten(), fc1, torch.nn.ReLU(), fc2
    )
    bounded = BoundedModule(model, x[:2])
    lower, upper = (x - EPSILON).clamp(0, 1), (x + EPSILON).clamp(0, 1)
    boxes = BoundedTensor(x, PerturbationLpNorm(norm=float("inf"), x_L=lower, x_U=upper))
    spec = SPEC.transpose(0, 1).contiguous()

    def bound(method):
        return lambda: bounded.compute_bounds(x=(boxes,), C=spec, IBP=True, method=method, bound_upper=False)[0].t()

    # `backward` with IBP is CROWN-IBP: intervals for the hidden layers, one walk for the margins.
    return bound(None), bound("backward")


def mtl_ibp_step(bound):
    """MTL-IBP (arXiv:2305.13991, its attack on MNIST): one step of ten epsilon from a random point, then both losses and the update."""
    lower, upper = (x - EPSILON).clamp(0, 1), (x + EPSILON).clamp(0, 1)
    v = (lower + (upper - lower) * torch.rand_like(x)).requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(network(v), y, reduction="sum"), v)
    v = torch.minimum(torch.maximum(v.detach() + 10 * EPSILON * g.sign(), lower), upper)
    update(0.92 * F.cross_entropy(network(v), y) + 0.08 * robust_loss(bound()))


def pgd_step():
    """Forty steps of size epsilon / 4 by the sign of the gradient, from a random start, then the update at the point found."""
    lower, upper = (x - EPSILON).clamp(0, 1), (x + EPSILON).clamp(0, 1)
    v = lower + (upper - lower) * torch.rand_like(x)
    for _ in range(40):
        v.requires_grad_()
        (g,) = torch.autograd.grad(F.cross_entropy(network(v), y, reduction="sum"), v)
        v = torch.minimum(torch.maximum(v.detach() + EPSILON / 4 * g.sign(), lower), upper)
    update(F.cross_entropy(network(v), y))


def forward():
    with torch.no_grad():
        network(large)


def bounded_works(by_intervals, by_walk):
    return {
        "IBP step": lambda: update(robust_loss(by_intervals())),
        "CROWN-IBP step": lambda: update(robust_loss(by_walk())),
        "MTL-IBP step": lambda: mtl_ibp_step(by_intervals),
    }


PLAIN = {
    "gemm 512": lambda: torch.mm(a, b),
    "forward 100": forward,
    "natural step": lambda: update(F.cross_entropy(network(x), y)),
    "natural step 100": lambda: update(F.cross_entropy(network(large), labels)),
    **bounded_works(ibp, crown_ibp),
    "PGD-40 step": pgd_step,
}
VERSION = f"PyTorch {torch.__version__}"
if LIBRARY == "plain":
    WORK = PLAIN
else:
    import auto_LiRPA

    WORK, VERSION = bounded_works(*lirpa()), f"auto_LiRPA {auto_LiRPA.__version__}, {VERSION}"
    # The library's bounds are those that are written out above, or its times say nothing.
    for own, other in zip((ibp, crown_ibp), lirpa()):
        with torch.no_grad():
            assert torch.allclose(own(), other(), atol=1e-3, rtol=1e-3), (own(), other())


def measure(f):
    for _ in range(3):
        f()
    wall, cpu, begun = [], [], time.perf_counter()
    while len(wall) < 5 or time.perf_counter() - begun < SECONDS:
        t, p = time.perf_counter(), time.process_time()
        f()
        wall.append((time.perf_counter() - t) * 1e3)
        cpu.append((time.process_time() - p) * 1e3)
        # A step that takes long is measured a few times only.
        if time.perf_counter() - begun > 15:
            break
    return {"wall": statistics.median(wall), "cpu": statistics.median(cpu)}


print(json.dumps({"version": VERSION, "works": {w: measure(WORK[w]) for w in WORKS if w in WORK}}))
