"""The probe against PyTorch's own SGD and cosine schedule, and what it must not depend on."""

import jax
import numpy as np
import pytest

from fae_jax.evaluation.linear_probe import rows_of, train_probes


def problem(count=60, classes=4, width=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    vectors = rng.normal(size=(count, width)) + 2 * np.eye(width)[labels]
    return vectors.astype(np.float32), labels


@pytest.mark.parity
def test_each_rate_is_a_run_of_its_own_as_torch_makes_it():
    torch = pytest.importorskip("torch")
    vectors, labels = problem()
    rates, steps, batch = (1e-3, 0.1, 3.0), 12, 20
    probes = train_probes([vectors], labels, 4, learning_rates=rates, steps=steps, batch=batch, seed=3)
    start = 0.01 * np.asarray(jax.random.normal(jax.random.key(3), (5, 4)))
    for place, rate in enumerate(rates):
        linear = torch.nn.Linear(5, 4)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(start.T))
            linear.bias.zero_()
        optimizer = torch.optim.SGD(linear.parameters(), lr=rate * batch / 256, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0)
        for step in range(steps):
            order = np.random.default_rng((3, step // 3)).permutation(60)
            chosen = order[step % 3 * batch :][:batch]
            loss = torch.nn.functional.cross_entropy(
                linear(torch.tensor(vectors[chosen])), torch.tensor(labels[chosen])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        np.testing.assert_allclose(probes.kernel[place], linear.weight.detach().numpy().T, atol=1e-5)
        np.testing.assert_allclose(probes.bias[place], linear.bias.detach().numpy(), atol=1e-5)


def test_it_learns_with_a_fitting_rate_and_not_with_a_tiny_one():
    vectors, labels = problem(400)
    probes = train_probes([vectors], labels, 4, learning_rates=(1e-7, 1.0), steps=60, batch=100)
    tiny, fitting = probes.accuracies([vectors], labels)
    assert fitting > 0.8 and fitting > tiny
    np.testing.assert_array_equal(probes.predict([vectors], block=7), probes.predict([vectors]))


def test_parts_lie_side_by_side():
    vectors, labels = problem()
    options = {"learning_rates": (0.1,), "steps": 5, "batch": 32}
    cut = train_probes([vectors[:, :2], vectors[:, 2:]], labels, 4, **options)
    np.testing.assert_array_equal(cut.kernel, train_probes([vectors], labels, 4, **options).kernel)
    halves = [vectors[:, :2].astype(np.float16), vectors[:, 2:]]
    assert rows_of(halves, np.array([3, 1])).dtype == np.float32


def test_every_vector_is_seen_once_an_epoch():
    vectors, labels = np.eye(6, dtype=np.float32), np.zeros(6, int)
    probes = train_probes([vectors], labels, 2, learning_rates=(1.0,), steps=3, batch=2)
    start = 0.01 * np.asarray(jax.random.normal(jax.random.key(0), (6, 2)))
    assert (np.abs(np.asarray(probes.kernel[0]) - start) > 1e-4).all()
