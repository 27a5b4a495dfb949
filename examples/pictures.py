"""Inside the networks: why sigma = 1e-4 fails without batch norm, what the first layer sees, and what is mistaken.

The activations are those of the 9-layer networks before training: without batch norm each layer shrinks its input by
the same factor, until nothing of the image is left in the output, and nothing of the loss reaches the first layer.
"""

from __future__ import annotations

from typing import Any

from _common import HIDDEN_3, HIDDEN_9, Job, Make, main, options
from figures5to7 import SIGMAS

import xpnet
from xpnet import plotting
from xpnet.backend import to_numpy
from xpnet.nn.summary import activation_statistics


def run(job: Job) -> dict[str, Any]:
    """Measure activations, train the 3-layer network with batch norm, and draw."""
    data, panels, rows = job.data, {}, []
    sample = job.device.asarray(data.train.x[:1000])
    for batch_norm in (False, True):
        lines = {}
        for sigma in SIGMAS:
            trainer = Make(job, HIDDEN_9, batch_norm)(job.seed, sigma=sigma)
            trainer.fit(*data.train, steps=0)  # initial weights, and the scale of the pixels
            lines[f"sigma = {sigma:g}"] = found = activation_statistics(trainer.network, sample, train=True)
            rows.append({"sigma": sigma, "batch_norm": batch_norm, "mean_abs_output": found[-1]["mean_abs"]})
        panels[f"{'with' if batch_norm else 'without'} batch norm"] = lines
    job.draw("activations", plotting.activations, panels, title="Outputs of the layers before training")
    found = xpnet.sweep(Make(job, HIDDEN_3, batch_norm=True), {"seed": [job.seed]}, **options(job, points=40))
    job.draw("history", plotting.history, found.histories[0].columns, title="Hidden layers [50, 50], with batch norm")
    network = found.network()
    job.draw("weights", plotting.weights, to_numpy(network.arrays["W1"]), data.image_shape, title="Its first layer")
    taken = to_numpy(network.predict(job.device.asarray(data.test.x)))
    job.draw("mistakes", plotting.mistakes, data.test.y, taken, data.test.x, data.image_shape, data.classes,
             title="Its mistakes", count=12)
    return {"activations": rows, "test_accuracy": float((taken == data.test.y).mean())}


if __name__ == "__main__":
    main("pictures", __doc__, run)
