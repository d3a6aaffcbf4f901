"""Kinglet, as `cargo build --release` leaves it, with its defaults."""

from pathlib import Path

from peers import Launch, Place, Server, speaks


def binary(place: Place) -> Path:
    return place.target.parent / "release" / "kinglet"


def launch(place: Place) -> Launch:
    listeners = [f"--{name}=127.0.0.1:{port}" for name, port in (("http", place.http), ("grpc", place.grpc), ("admin", place.admin))]
    return Launch([str(binary(place)), "serve", f"--repository={place.repository}", *listeners])


SERVERS = [Server("kinglet", speaks("json", "binary", "grpc"), launch, binary)]
