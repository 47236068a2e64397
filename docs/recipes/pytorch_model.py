"""A PyTorch model: BATCHER_MODEL=pytorch_model:model uvicorn batchers.serving:app"""

import numpy as np
import torch

from batchers.arrays import rows, stacked

network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)).eval()


@torch.inference_mode()
def predict(array: np.ndarray) -> torch.Tensor:
    return network(torch.from_numpy(array))[:, 0]


model = stacked(predict, rows((3,), "float32", finite=True))
