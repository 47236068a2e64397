"""Train the model that the server serves: `python -m server.train` (needs the extra `train`).

49 Dense(64) ReLU layers and Dense(1), the model of the benchmark, on scikit-learn's diabetes data: ten
measurements of 442 patients, and the progression of the disease one year later. The seed is fixed. It
writes assets/diabetes.keras, and assets/diabetes.json with the feature names and the scaling: inputs are
scaled to mean 0 and standard deviation 1 of the training rows, and so was the target.
"""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_diabetes

from .model import DESCRIPTION_FILE, MODEL_FILE, Description

SEED = 7
HIDDEN_LAYERS = 49
UNITS = 64
EPOCHS = 200
PATIENCE = 40


def build() -> keras.Model:
    """Return the untrained network.

    Its weights are mirrored, so that each pair of units passes a number and its negative and the whole
    network is linear at first: 50 plain layers would otherwise not learn anything. (Balduzzi et al. 2017,
    "The Shattered Gradients Problem", section 5: the looks-linear initialization.)
    """
    layers = [keras.layers.Dense(UNITS, activation="relu") for _ in range(HIDDEN_LAYERS)]
    layers.append(keras.layers.Dense(1))
    inputs = outputs = keras.Input((10,))
    for layer in layers:
        outputs = layer(outputs)
    # No keras.Sequential, which loads three times as slowly: it builds the network anew for each layer.
    network = keras.Model(inputs, outputs)
    start = keras.initializers.Orthogonal(seed=keras.random.SeedGenerator(SEED))
    for number, layer in enumerate(layers):
        kernel, bias = layer.get_weights()
        height, width = kernel.shape
        if number == 0:
            half = np.asarray(start((height, width // 2)))
            mirrored = np.hstack([half, -half])
        elif width == 1:
            half = np.asarray(start((height // 2, 1)))
            mirrored = np.vstack([half, -half])
        else:
            half = np.asarray(start((height // 2, width // 2)))
            mirrored = np.block([[half, -half], [-half, half]])
        layer.set_weights([mirrored, bias])
    return network


def r_squared(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share of the variance that the prediction explains; a constant explains 0."""
    return float(1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def main() -> None:
    """Train, report R squared on the held-out fifth, and write the two files."""
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    data = load_diabetes(scaled=False)
    order = np.random.default_rng(SEED).permutation(len(data.target))
    held_out, training = np.split(order, [len(order) // 5])
    x, y = data.data.astype("float64"), data.target.astype("float64")
    mean, scale = x[training].mean(axis=0), x[training].std(axis=0)
    target_mean, target_scale = y[training].mean(), y[training].std()
    inputs, targets = (x - mean) / scale, (y - target_mean) / target_scale

    model = build()
    model.compile(optimizer=keras.optimizers.AdamW(1e-4, weight_decay=0.1, clipnorm=1.0), loss="mse")
    model.fit(
        inputs[training],
        targets[training],
        epochs=EPOCHS,
        batch_size=32,
        validation_split=0.15,
        callbacks=[keras.callbacks.EarlyStopping(patience=PATIENCE, restore_best_weights=True)],
        verbose=0,
    )
    predicted = model.predict(inputs[held_out], verbose=0)[:, 0] * target_scale + target_mean
    score = r_squared(y[held_out], predicted)
    description = Description(
        features=list(data.feature_names),
        mean=mean.tolist(),
        scale=scale.tolist(),
        target_mean=float(target_mean),
        target_scale=float(target_scale),
        r_squared=round(score, 4),
        example=x[held_out[0]].tolist(),
    )
    bare = build()  # without the optimizer's state, which would triple the file
    bare.set_weights(model.get_weights())
    bare.save(MODEL_FILE)
    DESCRIPTION_FILE.write_text(json.dumps(description.model_dump(), indent=2) + "\n")
    print(f"R squared on {len(held_out)} held-out rows: {score:.4f} (a constant scores 0)")
    for file in (MODEL_FILE, DESCRIPTION_FILE):
        print(f"wrote {file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}")


if __name__ == "__main__":
    main()
