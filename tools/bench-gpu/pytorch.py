"""PyTorch on CUDA on the works of bench:gpu, f32 without TF32: prints one JSON line.

usage: pytorch.py MILLISECONDS WORK...
Batch norm (cnn7) uses the statistics of the clean batch in every pass, as ours does; a step is forward, backward and Adam.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F

PATIENCE, WORKS = float(sys.argv[1]) / 1e3, sys.argv[2:]
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
torch.backends.cudnn.benchmark = True
torch.manual_seed(0)
DEVICE = "cuda"
EPSILON = 2 / 255

# [channels, kernel, stride] or [units]; the third entry says whether batch norm follows the hidden layers.
LAYERS = {
    "small": ([[16, 4, 2], [32, 4, 2], [100], [10]], [1, 28, 28], False),
    "large": ([[32, 3, 1], [32, 4, 2], [64, 3, 1], [64, 4, 2], [512], [512], [10]], [1, 28, 28], False),
    "cnn7": ([[64, 3, 1], [64, 3, 1], [128, 3, 2], [128, 3, 1], [128, 3, 1], [512], [10]], [3, 32, 32], True),
}


def measure(once):
    def timed(n):
        begun = time.perf_counter()
        for _ in range(n):
            once()
        torch.cuda.synchronize()
        return time.perf_counter() - begun

    timed(1)
    n, took = 1, timed(1)
    while took < PATIENCE / 2 and n < 4096:
        n *= 2
        took = timed(n)
    return min(took, timed(n)) / n * 1e3


def gemm(n):
    a, b = torch.rand(n, n, device=DEVICE), torch.rand(n, n, device=DEVICE)
    return lambda: torch.mm(a, b), 2 * n**3


def convolution(which, n, c, h, o, k, s):
    x, w = torch.rand(n, c, h, h, device=DEVICE), torch.rand(o, c, k, k, device=DEVICE)
    y = F.conv2d(x, w, None, s, 1)
    flops = 2 * y.numel() * c * k * k
    if which == "conv":
        return lambda: F.conv2d(x, w, None, s, 1), flops
    mask = [which == "convInput", which == "convWeight", False]
    back = torch.ops.aten.convolution_backward
    return lambda: back(y, x, w, None, [s, s], [1, 1], [1, 1], False, [0, 0], 1, mask), flops


class Net:
    def __init__(self, name):
        layers, self.input, self.normed = LAYERS[name]
        self.layers, (channels, side, _), flat = [], self.input, False
        for layer in layers:
            if len(layer) == 3:
                out, k, s = layer
                self.layers.append((torch.nn.Conv2d(channels, out, k, s, 1), True))
                side = (side + 2 - k) // s + 1
            else:
                out = layer[0]
                self.layers.append((torch.nn.Linear(channels if flat else channels * side * side, out), False))
                flat = True
            channels = out
        hidden = [m.out_channels if is_conv else m.out_features for m, is_conv in self.layers[:-1]]
        self.norms = [torch.nn.BatchNorm1d(n) for n in hidden] if self.normed else []
        for m in [m for m, _ in self.layers] + self.norms:
            m.to(DEVICE)
        parameters = [p for m in [m for m, _ in self.layers] + self.norms for p in m.parameters()]
        self.adam = torch.optim.Adam(parameters, lr=1e-4)

    def scale(self, i, h):
        """Slope and offset of batch norm by the statistics of h."""
        axes = [0, 2, 3] if h.dim() == 4 else [0]
        mean, var = h.mean(axes), h.var(axes, unbiased=False)
        slope = self.norms[i].weight / torch.sqrt(var + 1e-5)
        return slope, self.norms[i].bias - mean * slope

    def clean(self, x):
        """Logits, and the slope and offset of every batch norm."""
        scales = []
        for i, (m, is_conv) in enumerate(self.layers):
            x = m(x if is_conv else x.flatten(1))
            if i == len(self.layers) - 1:
                return x, scales
            if self.normed:
                scales.append(self.scale(i, x))
                x = self.affine(x, scales[i])
            x = F.relu(x)

    @staticmethod
    def affine(x, scale):
        shape = [1, -1] + [1] * (x.dim() - 2)
        return x * scale[0].view(shape) + scale[1].view(shape)

    def boxes(self, x, scales):
        """Centre and radius before each ReLU, and after the last one."""
        lower, upper = (x - EPSILON).clamp(0, 1), (x + EPSILON).clamp(0, 1)
        c, r = (upper + lower) / 2, (upper - lower) / 2
        before = []
        for i, (m, is_conv) in enumerate(self.layers[:-1]):
            if is_conv:
                c, r = m(c), F.conv2d(r, m.weight.abs(), None, m.stride, m.padding)
            else:
                c, r = m(c.flatten(1)), F.linear(r.flatten(1), m.weight.abs())
            if self.normed:
                slope = scales[i][0].abs()
                c, r = self.affine(c, scales[i]), self.affine(r, (slope, torch.zeros_like(slope)))
            before.append((c, r))
            lower, upper = F.relu(c - r), F.relu(c + r)
            c, r = (upper + lower) / 2, (upper - lower) / 2
        return before, c, r

    def update(self, loss):
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()


def step(name, loss, batch):
    net = Net(name)
    x, y = torch.rand(batch, *net.input, device=DEVICE), torch.arange(batch, device=DEVICE) % 10
    rivals = torch.tensor([[j for j in range(10) if j != k % 10] for k in range(batch)], device=DEVICE).t()
    spec = F.one_hot(y, 10).float().unsqueeze(0) - F.one_hot(rivals, 10).float()
    last = net.layers[-1][0]

    def worst(lower):
        net.update(torch.logsumexp(torch.cat([torch.zeros(1, batch, device=DEVICE), -lower]), 0).mean())

    def ibp():
        scales = net.clean(x)[1] if net.normed else []
        _, c, r = net.boxes(x, scales)
        rows = spec @ last.weight
        worst((rows * c.flatten(1)).sum(2) - (rows.abs() * r.flatten(1)).sum(2) + spec @ last.bias)

    def crown_ibp():
        scales = net.clean(x)[1] if net.normed else []
        before, _, _ = net.boxes(x, scales)
        rows, offset = spec @ last.weight, spec @ last.bias
        for i in range(len(net.layers) - 2, -1, -1):
            c, r = before[i]
            lower, upper = c - r, c + r
            up = F.relu(upper) / torch.clamp(F.relu(upper) - torch.clamp(lower, max=0), min=1e-12)
            low = (up > 0.5).float()
            rows = rows.reshape(9, *c.shape)
            positive, negative = rows.clamp(min=0), rows.clamp(max=0)
            offset = offset + (negative * (-up * torch.clamp(lower, max=0))).flatten(2).sum(2)
            rows = positive * low + negative * up
            if net.normed:
                shape = [1, 1, -1] + [1] * (c.dim() - 2)
                offset = offset + (rows * scales[i][1].view(shape)).flatten(2).sum(2)
                rows = rows * scales[i][0].view(shape)
            m, is_conv = net.layers[i]
            if is_conv:
                offset = offset + rows.sum((3, 4)) @ m.bias
                before_shape = before[i - 1][0].shape[1:] if i > 0 else torch.Size(net.input)
                extra = before_shape[-1] - ((c.shape[-1] - 1) * m.stride[0] - 2 + m.kernel_size[0])
                flat = F.conv_transpose2d(rows.flatten(0, 1), m.weight, None, m.stride, 1, extra)
                rows = flat.reshape(9, batch, *before_shape)
            else:
                offset = offset + rows @ m.bias
                rows = rows @ m.weight
        lower, upper = (x - EPSILON).clamp(0, 1), (x + EPSILON).clamp(0, 1)
        c, r = (upper + lower) / 2, (upper - lower) / 2
        worst((rows * c).flatten(2).sum(2) - (rows.abs() * r).flatten(2).sum(2) + offset)

    natural = lambda: net.update(F.cross_entropy(net.clean(x)[0], y))  # noqa: E731
    return {"natural": natural, "ibp": ibp, "crown-ibp": crown_ibp}[loss], None


def made(work):
    what, *rest = work.split()
    if what == "gemm":
        return gemm(int(rest[0]))
    if what == "step":
        return step(rest[0], rest[1], int(rest[2]))
    return convolution(what, *map(int, rest))


works = {}
for work in WORKS:
    print(f"PyTorch: {work}", file=sys.stderr)
    try:
        once, flops = made(work)
        ms = measure(once)
        works[work] = {"milliseconds": ms, **({} if flops is None else {"gigaflops": flops / ms / 1e6})}
    except Exception as e:  # a work that does not fit is a row of the table
        works[work] = {"error": str(e).split("\n")[0][:200]}
print(json.dumps({"version": f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}", "works": works}))
