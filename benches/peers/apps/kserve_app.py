"""KServe's way to serve one's own model: a `Model` for each, one FP32 input through ONNX Runtime."""

import os

import grpc
import uvicorn
from kserve import Model, ModelServer
from kserve.utils.utils import get_predict_response

from sessions import open_all


class Onnx(Model):
    def __init__(self, name, session):
        super().__init__(name)
        self.session = session
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        y = self.session.run(None, {"x": payload.inputs[0].as_numpy()})[0]
        return get_predict_response(payload, y, self.name)


def stay_on_loopback() -> None:
    """KServe binds every interface and logs every request, and has a flag for neither."""
    configure, listen = uvicorn.Config.__init__, grpc.aio.Server.add_insecure_port
    uvicorn.Config.__init__ = lambda self, *args, **named: configure(self, *args, **{**named, "host": "127.0.0.1", "access_log": False})
    grpc.aio.Server.add_insecure_port = lambda self, address: listen(self, address.replace("[::]", "127.0.0.1"))


if __name__ == "__main__":
    stay_on_loopback()
    ModelServer().start([Onnx(*entry) for entry in open_all(os.environ["MODEL_REPOSITORY"]).items()])
