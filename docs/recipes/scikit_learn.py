"""A model of scikit-learn: BATCHER_MODEL=scikit_learn:Model uvicorn batchers.serving:app"""

from typing import Annotated

import numpy as np
from pydantic import Field
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

Flower = Annotated[list[float], Field(min_length=4, max_length=4)]


class Model:
    example = (5.1, 3.5, 1.4, 0.2)

    def load(self) -> None:
        data = load_iris()
        self.names = [str(name) for name in data.target_names]
        self.classifier = LogisticRegression(max_iter=1000).fit(data.data, data.target)

    def predict(self, batch: list[Flower]) -> list[str]:
        return [self.names[number] for number in self.classifier.predict(np.array(batch))]
