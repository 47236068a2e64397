"""A Keras model: BATCHER_MODEL=keras_model:model uvicorn batchers.serving:app"""

import keras
import numpy as np
import tensorflow as tf

from batchers.arrays import rows, stacked

network = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
call = tf.function(network, input_signature=[tf.TensorSpec((None, 3), tf.float32)])  # traced once for all sizes


def predict(array: np.ndarray) -> np.ndarray:
    return call(tf.constant(array)).numpy()[:, 0]


model = stacked(predict, rows((3,), "float32", finite=True))
