"""Trains the wine classifier from scratch and exports it: `python training/wine.py --out DIR`.

A random forest of 50 trees over the 13 raw measurements; nothing is scaled.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split


def main() -> None:
    args = arguments()
    x, y = load_wine(return_X_y=True)
    # the fixed split of the stated accuracy: 124 and 54 wines, each class in proportion
    x_train, x_test, y_train, y_test = train_test_split(x.astype(np.float32), y, test_size=0.3, random_state=0, stratify=y)
    forest = RandomForestClassifier(n_estimators=50, random_state=args.seed).fit(x_train, y_train)
    model = to_onnx(
        forest,
        initial_types=[("X", FloatTensorType([None, 13]))],
        options={"zipmap": False},
        target_opset={"": 15, "ai.onnx.ml": 1},
    )
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "model.onnx"
    path.write_bytes(model.SerializeToString())
    labels = onnxruntime.InferenceSession(path).run(["label"], {"X": x_test})[0]
    print(f"{path}: test accuracy {np.mean(labels == y_test):.4f} on {len(y_test)} wines")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder that receives model.onnx")
    parser.add_argument("--seed", type=int, default=0, help="bootstrap samples and features tried at a split")
    return parser.parse_args()


if __name__ == "__main__":
    main()
