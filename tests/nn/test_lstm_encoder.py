import math

from tsl_latentgnn.nn import LSTMEncoder

import pytest
import torch


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


def run_lstm(lstm, x, state=None):
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
    final = (
        torch.tensor(hidden, dtype=torch.double),
        torch.tensor(cell, dtype=torch.double),
    )
    return torch.tensor(out, dtype=torch.double), final


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_values_match_a_loop(num_layers):
    torch.manual_seed(0)
    encoder = LSTMEncoder(3, 4, num_layers).double()
    x = torch.randn(2, 5, 3, dtype=torch.double)
    out, (h, c) = encoder(x)
    expected, (expected_h, expected_c) = run_lstm(encoder.lstm, x)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(h, expected_h)
    torch.testing.assert_close(c, expected_c)
    torch.testing.assert_close(out[:, -1], h[-1])


def test_dropout_acts_between_layers_in_training_only():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3)
    encoder = LSTMEncoder(3, 4, 2, dropout=0.5)
    assert not torch.equal(encoder(x)[0], encoder(x)[0])
    encoder.eval()
    torch.testing.assert_close(encoder(x)[0].double(), run_lstm(encoder.lstm, x)[0])
    single = LSTMEncoder(3, 4, 1, dropout=0.5)
    torch.testing.assert_close(single(x)[0].double(), run_lstm(single.lstm, x)[0])


def test_reset_parameters_draws_anew():
    encoder = LSTMEncoder(3, 4)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.reset_parameters()
    assert all(not torch.equal(v, before[name]) for name, v in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input_size": 0}, ValueError, "'input_size' must be an int >= 1"),
        ({"hidden_size": 0}, ValueError, "'hidden_size' must be an int >= 1"),
        ({"num_layers": 0}, ValueError, "'num_layers' must be an int >= 1"),
        ({"num_layers": 1.0}, TypeError, "'num_layers' must be an int"),
        ({"dropout": -0.1}, ValueError, "'dropout' must be a number >= 0"),
        ({"dropout": 1.1}, ValueError, "'dropout' must be a number <= 1"),
        ({"dropout": True}, TypeError, "'dropout' must be a number"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LSTMEncoder(**{"input_size": 3, "hidden_size": 4, **arguments})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0]], TypeError, "'x' must be a torch.Tensor"),
        (torch.ones(2, 5, 3, dtype=torch.long), TypeError, "'x' must be a floating point"),
        (torch.ones(5, 3), ValueError, "'x' must have 3 dimensions"),
        (torch.ones(2, 5, 4), ValueError, "'x' .* size 3 in dimension 2"),
        (torch.ones(2, 0, 3), ValueError, "'x' .* must not be empty"),
    ],
)
def test_bad_input(x, error, message):
    with pytest.raises(error, match=message):
        LSTMEncoder(3, 4)(x)
