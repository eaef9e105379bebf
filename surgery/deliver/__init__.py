"""From a trained model to a version of the store: ONNX export and the parity gate."""
