"""The formulas of the layers in loops and float64, and what else more than one test module uses."""

from __future__ import annotations

import cmath
import math

from tsl_latentgnn.models import PRESETS

import torch


def small_preset(**changes):
    """Options of the preset that is the default of the models, but for sizes that a test can afford."""
    return {**PRESETS["state"], "hidden_size": 8, "node_emb_size": 4, **changes}


def complex_weight(layer):
    """The complex weights ``[C, C_out, modes1, modes2]`` of the formula."""
    real, imag = layer.weight.detach().double().unbind(3)
    return (real + 1j * imag).permute(2, 3, 0, 1)


def fourier_sums(layer, x):
    """The discrete Fourier sums and their inverse, term by term in Python complex numbers."""
    weight = complex_weight(layer).tolist()
    batch, channels, steps, nodes = x.shape
    values = x.double().tolist()
    modes = [
        (p, q)
        for p in range(min(layer.modes1, steps // 2 + 1))
        for q in range(min(layer.modes2, nodes // 2 + 1))
    ]
    cells = [(t, n) for t in range(steps) for n in range(nodes)]

    def wave(p, q, t, n):
        return cmath.exp(2j * math.pi * (p * t / steps + q * n / nodes))

    out = torch.zeros(batch, layer.out_channels, steps, nodes, dtype=torch.double)
    for b in range(batch):
        for p, q in modes:
            spectrum = [
                sum(values[b][i][t][n] * wave(p, q, t, n).conjugate() for t, n in cells)
                for i in range(channels)
            ]
            # A node frequency stands for its mirror image too, unless it is its own.
            count = 1 if q == 0 or 2 * q == nodes else 2
            for o in range(layer.out_channels):
                mixed = sum(spectrum[i] * weight[i][o][p][q] for i in range(channels))
                for t, n in cells:
                    real = (mixed * wave(p, q, t, n)).real
                    out[b, o, t, n] += count * real / (steps * nodes)
    return out


def randomize(layer, seed=0):
    torch.manual_seed(seed)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def run_layer(layer, x, mask=None, summary=None):
    """Output, graphs and weights of a layer; with a ``summary``, whose graphs each serve a window of ``x``."""
    h = x.reshape(-1, layer.num_nodes, layer.in_features)
    sources = None if mask is None else mask.reshape(-1, layer.num_nodes)
    if summary is None:
        edges = layer.learner(h, sources)
        graph = edges.graph(x.shape[:-2])
    else:
        edges = layer.learner(summary, None if mask is None else mask.any(1))
        graph = edges.graph(summary.shape[:-2])
        edges = edges if sources is None else edges.restrict(sources)
    out = layer.pass_messages(h, edges).view(*x.shape[:-1], layer.out_features)
    weights = edges.repeat(len(h) // edges.num_graphs).weights
    return out, graph, weights.reshape(-1, layer.heads)


def convolve(layer, x, mask=None, summary=None):
    """The layer's formula in Python loops over graphs, targets, sources and heads.

    With a ``summary`` each of its graphs serves as many inputs of ``x``, one after the other.
    """
    learner, x = layer.learner, x.double()
    weights = {name: value.detach().double() for name, value in layer.state_dict().items()}

    def linear(name, v):
        out = weights[f"{name}.weight"] @ v
        return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out

    heads, d, n = layer.heads, layer.head_features, layer.num_nodes
    table = [list(range(n))] * n if learner.candidates is None else learner.candidates.tolist()
    k = layer.k_neighbors or len(table[0])
    forced = learner.add_self_loops and (layer.k_neighbors or learner.candidates is not None)
    scored = x if summary is None else summary.double()
    steps = len(x) // len(scored)
    out, alpha = [], torch.zeros(x.size(0), n, n, heads, dtype=torch.double)
    for g in range(x.size(0)):
        values = [linear("lin_value", x[g, j]).view(heads, d) for j in range(n)]
        here, seen = [True] * n, [True] * n
        if mask is not None:
            here = mask[g].tolist()
            window = range(g // steps * steps, g // steps * steps + steps)
            seen = [any(bool(mask[t, j]) for t in window) for j in range(n)]
        for i in range(n):
            own = [j for j in table[i] if j >= 0]
            scores = {}
            for column, j in enumerate(own):
                for h in range(heads):
                    score = 0.0
                    if learner.dynamic:
                        query = linear("learner.lin_query", scored[g // steps, i]).view(heads, d)[h]
                        key = linear("learner.lin_key", scored[g // steps, j]).view(heads, d)[h]
                        score += float(query @ key) / math.sqrt(d)
                    own_head = (h,) if learner.signed else ()
                    if learner.static == "full":
                        score += float(weights["learner.correlation"][(i, column, *own_head)])
                    elif learner.static is not None:
                        score += float(
                            weights["learner.target_embedding"][(i, *own_head)]
                            @ weights["learner.source_embedding"][(j, *own_head)]
                        )
                    scores[j, h] = score
            power = 2 if learner.signed else 1
            ranks = {j: sum(scores[j, h] ** power for h in range(heads)) / heads for j in own}
            sources = sorted(own, key=lambda j: -ranks[j])
            first = [i] if forced else []
            sources = first + [j for j in sources if seen[j] and j not in first]
            sources = [j for j in sources[:k] if here[j] and seen[j]]
            message = torch.zeros(heads, d, dtype=torch.double)
            for h in range(heads):
                total = sum(math.exp(scores[j, h] / learner.temperature) for j in sources)
                for j in sources:
                    a = scores[j, h] / learner.temperature
                    a = a if learner.signed else math.exp(a) / total
                    alpha[g, i, j, h] = a
                    message[h] += a * values[j][h]
            if layer.lin_gate is not None:
                message = message * (1 + linear("lin_gate", x[g, i]).view(heads, d))
            message = message.flatten() if layer.concat else message.mean(0)
            hidden = linear("mlp.0", message).clamp(min=0)
            residual = x[g, i]
            if layer.in_features != layer.out_features:
                residual = linear("lin_residual", x[g, i])
            out.append(linear("mlp.2", hidden) + residual)
    return torch.stack(out).view(x.size(0), n, -1), alpha


def standardize(rows, eps=1e-5):
    """Each channel of the rows less its mean, over its standard deviation."""
    out = torch.zeros_like(rows)
    for c in range(rows.size(1)):
        values = rows[:, c].tolist()
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
        out[:, c] = (rows[:, c] - mean) / math.sqrt(variance + eps)
    return out


def normalize(norm, weights, h, mask):
    """The three normalizations, absent nodes left as they are."""
    out = h.clone()
    if norm == "layer":
        for g in range(h.size(0)):
            out[g] = standardize(h[g].T).T
        return out * weights["weight"] + weights["bias"]
    present = torch.ones(h.shape[:2], dtype=torch.bool) if mask is None else mask
    if norm == "batch":
        if present.any():
            out[present] = standardize(h[present]) * weights["module.weight"]
            out[present] += weights["module.bias"]
        return out
    for g in range(h.size(0)):
        if not present[g].any():
            continue
        # GraphNorm takes off a learned part of the mean, and scales by what is left.
        rows = h[g][present[g]]
        rows = rows - rows.mean(0) * weights["mean_scale"]
        rows = rows / (rows.pow(2).mean(0) + 1e-5).sqrt()
        out[g, present[g]] = rows * weights["weight"] + weights["bias"]
    return out


def summarize(h, mask):
    """Mean of each node over the steps at which it is there, ``[B, N, H]`` of ``h`` ``[B, T, N, H]``."""
    batch, steps, nodes, size = h.shape
    out = torch.zeros(batch, nodes, size, dtype=torch.double)
    for b in range(batch):
        for n in range(nodes):
            there = [h[b, t, n] for t in range(steps) if mask is None or mask[b, t, n]]
            if there:
                out[b, n] = sum(there) / len(there)
    return out


def convolve_layers(encoder, h, mask=None):
    """Layer by layer, in loops; the adjacency of each is of the batch shape of the graphs."""
    shape, batch_shape = h.shape, h.shape[:-2]
    windows = encoder.graph_per == "window" and h.dim() == 4
    rows = None if mask is None else mask.reshape(-1, shape[-2])
    seen = None if mask is None or not windows else mask.any(1)
    adjacencies = []
    for layer, conv in enumerate(encoder.convs):
        summary = summarize(h, mask) if windows else None
        h, alpha = convolve(conv, h.reshape(-1, *shape[-2:]), rows, summary)
        if windows:
            alpha, batch_shape = convolve(conv, summary, seen)[1], shape[:1]
        adjacencies.append(alpha.mean(-1).view(*batch_shape, *alpha.shape[1:3]))
        if encoder.norm is not None:
            state = encoder.norms[layer].state_dict()
            h = normalize(encoder.norm, {n: v.double() for n, v in state.items()}, h, rows)
        h = h.view(shape)
    return h, adjacencies


def lstm_step(weights, layer, x, h, c):
    """One step of one cell on lists of numbers, gate by gate; ``weights`` are those of an LSTM."""
    size = len(h)

    def gate(index, unit):
        row = index * size + unit
        total = weights[f"bias_ih_l{layer}"][row] + weights[f"bias_hh_l{layer}"][row]
        total += sum(w * v for w, v in zip(weights[f"weight_ih_l{layer}"][row], x, strict=True))
        return total + sum(
            w * v for w, v in zip(weights[f"weight_hh_l{layer}"][row], h, strict=True)
        )

    def sigmoid(value):
        return 1 / (1 + math.exp(-value))

    new_h, new_c = [], []
    for unit in range(size):
        forget, cell = sigmoid(gate(1, unit)), math.tanh(gate(2, unit))
        new_c.append(forget * c[unit] + sigmoid(gate(0, unit)) * cell)
        new_h.append(sigmoid(gate(3, unit)) * math.tanh(new_c[unit]))
    return new_h, new_c


def run_cells(lstm, x, state=None):
    """Run the stacked cells over the sequences ``x`` ``[S, T, F]``, from zeros or a given state."""
    weights = {name: value.detach().double().tolist() for name, value in lstm.state_dict().items()}
    shape = (lstm.num_layers, x.size(0), lstm.hidden_size)
    if state is None:
        state = (torch.zeros(shape), torch.zeros(shape))
    hidden, cell = (s.detach().double().tolist() for s in state)
    out = []
    for s, sequence in enumerate(x.detach().double().tolist()):
        out.append([])
        for values in sequence:
            for layer in range(lstm.num_layers):
                hidden[layer][s], cell[layer][s] = lstm_step(
                    weights, layer, values, hidden[layer][s], cell[layer][s]
                )
                values = hidden[layer][s]
            out[s].append(values)
    final = (torch.tensor(hidden, dtype=torch.double), torch.tensor(cell, dtype=torch.double))
    return torch.tensor(out, dtype=torch.double), final


def attend(query, encoded):
    """Mean of the encoder states, weighted by a softmax of their products with the query."""
    scores = [float(query @ state) / math.sqrt(len(query)) for state in encoded]
    weights = [math.exp(score - max(scores)) for score in scores]
    return sum(w / sum(weights) * state for w, state in zip(weights, encoded, strict=True))


def decode(decoder, encoded, state, first, horizon, exog=None, targets=None, forced=()):
    """Decode every sequence by itself; ``forced`` are the steps that are fed the target before."""
    encoded, first = encoded.detach().double(), first.double()
    weights = {name: value.detach().double() for name, value in decoder.state_dict().items()}
    outputs, features = [], []
    for s in range(encoded.size(0)):
        hidden = tuple(part[:, s : s + 1].detach().double() for part in state)
        y, ys, zs = first[s], [], []
        for step in range(horizon):
            if step > 0 and step in forced:
                target = targets[s, step - 1].double().tolist()
                own = y.tolist()
                y = [o if math.isnan(t) else t for o, t in zip(own, target, strict=True)]
                y = torch.tensor(y, dtype=torch.double)
            inputs = y if exog is None else torch.cat([y, exog[s, step].double()])
            h, hidden = run_cells(decoder.lstm, inputs.view(1, 1, -1), hidden)
            h = h[0, 0]
            both = torch.cat([h, attend(h, encoded[s])])
            z = (weights["fc_out.weight"] @ both + weights["fc_out.bias"]).clamp(min=0)
            y = weights["final_out.weight"] @ z + weights["final_out.bias"]
            ys.append(y)
            zs.append(z)
        outputs.append(torch.stack(ys))
        features.append(torch.stack(zs))
    return torch.stack(outputs), torch.stack(features)


def read_out(readout, h, exog=None):
    """Every future step of every sequence with the weights of that step."""
    weights = {name: value.detach().double() for name, value in readout.state_dict().items()}
    outputs = torch.zeros(h.size(0), readout.horizon, readout.output_size, dtype=torch.double)
    features = torch.zeros(h.size(0), readout.horizon, readout.hidden_size, dtype=torch.double)
    for s in range(h.size(0)):
        for t in range(readout.horizon):
            z = weights["lin_state.weight"] @ h[s].double() + weights["lin_state.bias"]
            z = z + weights["step_embedding"][t]
            if exog is not None:
                z = z + weights["lin_exog.weight"] @ exog[s, t].double()
            z = features[s, t] = z.clamp(min=0)
            for c in range(readout.output_size):
                outputs[s, t, c] = z @ weights["weight"][t, :, c] + weights["bias"][t, c]
    return outputs, features


def smooth_by_kernel(smoother, y):
    """The learned kernel around every time step, the end values standing in beyond the ends."""
    radius = smoother.kernel_size // 2
    weight, bias = smoother.weight.detach().double().tolist(), smoother.bias.item()
    batch, steps, nodes = y.shape
    out = torch.zeros_like(y, dtype=torch.double)
    for b in range(batch):
        for t in range(steps):
            for n in range(nodes):
                out[b, t, n] = bias + sum(
                    weight[s + radius] * float(y[b, min(max(t + s, 0), steps - 1), n])
                    for s in range(-radius, radius + 1)
                )
    return out


def smooth_by_gaussian(y, kernel_size, sigma):
    """The weighted mean around every time step, the end values standing in beyond the ends."""
    radius = kernel_size // 2
    kernel = [math.exp(-(s**2) / (2 * sigma**2)) for s in range(-radius, radius + 1)]
    y = y.detach()
    batch, steps, nodes = y.shape
    out = torch.zeros_like(y, dtype=torch.double)
    for b in range(batch):
        for t in range(steps):
            for n in range(nodes):
                window = [
                    float(y[b, min(max(t + s, 0), steps - 1), n])
                    for s in range(-radius, radius + 1)
                ]
                total = math.fsum(w * v for w, v in zip(kernel, window, strict=True))
                out[b, t, n] = total / math.fsum(kernel)
    return out


class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes how many bytes the largest tensor has that comes up within."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, torch.Tensor):
                self.bytes = max(self.bytes, one.untyped_storage().nbytes())
        return out
