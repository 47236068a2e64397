"""A model of ONNX Runtime: BATCHER_MODEL=onnx_runtime:model uvicorn batchers.serving:app"""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from batchers.arrays import rows, stacked


def example_model() -> bytes:  # yours comes from a file
    weights = helper.make_tensor("weights", TensorProto.FLOAT, (3, 1), [1.0, 2.0, 3.0])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "weights"], ["results"])],
        "example",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ("batch", 3))],
        [helper.make_tensor_value_info("results", TensorProto.FLOAT, ("batch", 1))],
        [weights],
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


session = onnxruntime.InferenceSession(example_model(), providers=["CPUExecutionProvider"])


def predict(array: np.ndarray) -> np.ndarray:
    return session.run(["results"], {"rows": array})[0][:, 0]


model = stacked(predict, rows((3,), "float32", finite=True))
