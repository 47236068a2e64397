"""The example server: one Keras model behind FastAPI, with and without a batcher."""
