# SPDX-License-Identifier: Apache-2.0
"""The repos the tests use: small, but each with the shape of something people really load."""

from __future__ import annotations

import json
import struct

from tests.hub import HubFile, HubProcess, HubRepo, Pattern
from tests.hub.content import Bytes, ContentLike

MIB = 1 << 20
SHARD = 3 * MIB
TINY_REVISIONS = ("main", "v1.0", "feature/x", "refs/pr/1")
"""Of org/tiny: every kind of ref."""


def safetensors_bytes(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A safetensors file: 8 bytes of length, the JSON header, the tensors one after another."""
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values())


def noise(seed: str, size: int) -> bytes:
    return Pattern(seed, size).read(0, size)


def weights(seed: str, count: int = 6, rows: int = 64, columns: int = 512) -> bytes:
    """A safetensors file of `count` F32 matrices, whose values are all finite."""
    tensors = {}
    for index in range(count):
        words = struct.unpack(f"<{rows * columns}H", noise(f"{seed} {index}", rows * columns * 2))
        data = struct.pack(f"<{rows * columns}f", *[word / 65536 for word in words])
        tensors[f"layer.{index}.weight"] = ("F32", [rows, columns], data)
    return safetensors_bytes(tensors)


def fp8_weights() -> bytes:
    """Eight-bit floats beside a scale, as FP8 checkpoints have them."""
    return safetensors_bytes(
        {
            "layer.weight": ("F8_E4M3", [256, 512], noise("fp8", 256 * 512)),
            "layer.weight_scale": ("F32", [1], struct.pack("<f", 0.5)),
        }
    )


def transformers_repo() -> HubRepo:
    """A model with small files, shards and an index, a folder, two commits, a tag, a branch and a pull request."""
    repo = HubRepo("org/tiny")
    index = {"weight_map": {f"layer.{i}.weight": f"model-{i // 3 + 1:05}-of-00002.safetensors" for i in range(6)}}
    first = repo.commit(
        {
            ".gitattributes": "*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
            "README.md": "# Tiny\n" + "A model of nothing. " * 100,
            "config.json": json.dumps({"model_type": "tiny", "hidden_size": 512}),
            "empty.txt": b"",
            "model-00001-of-00002.safetensors": weights("shard 1"),
            "model-00002-of-00002.safetensors": weights("shard 2"),
            "model.safetensors.index.json": json.dumps(index),
            "onnx/model.onnx": Pattern("onnx", SHARD + 17),
            "onnx/deep/er/vocab.txt": "\n".join(f"word{i}" for i in range(500)),
            "odd.bin": Pattern("odd", 4097),
        },
        "First",
    )
    repo.tag("v1.0", first)
    repo.branch("feature/x", first)
    repo.commit({"config.json": json.dumps({"model_type": "tiny", "hidden_size": 512, "v": 2})}, "Second")
    repo.ref("refs/pr/1", first)
    return repo


def diffusers_repo() -> HubRepo:
    """A pipeline: `model_index.json` and a folder for each part."""
    repo = HubRepo("org/pipeline")
    files: dict[str, bytes | str] = {
        "model_index.json": json.dumps(
            {
                "_class_name": "TinyPipeline",
                "unet": ["diffusers", "UNet2DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"],
                "text_encoder": ["transformers", "CLIPTextModel"],
                "scheduler": ["diffusers", "DDIMScheduler"],
            }
        ),
        "scheduler/scheduler_config.json": json.dumps({"_class_name": "DDIMScheduler"}),
        "tokenizer/vocab.json": json.dumps({f"t{i}": i for i in range(300)}),
        "tokenizer/merges.txt": "#version: 0.2\na b\n",
    }
    for part in ("unet", "vae", "text_encoder"):
        files[f"{part}/config.json"] = json.dumps({"part": part})
        files[f"{part}/diffusion_pytorch_model.safetensors"] = weights(part, 2)
    repo.commit(files)
    return repo


def single_files_repo() -> HubRepo:
    """Checkpoints of one file each: safetensors, FP8, and what numpy and a zip reader read."""
    repo = HubRepo("org/checkpoints")
    repo.commit(
        {
            "sd_xl.safetensors": weights("single", 8),
            "sd_fp8.safetensors": fp8_weights(),
            "array.npy": npy(Bytes(noise("npy", 1 << 20)).data),
        }
    )
    return repo


def npy(data: bytes) -> bytes:
    """An array of bytes in numpy's own format."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({len(data)},), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def dataset_repo() -> HubRepo:
    repo = HubRepo("org/data", "dataset")
    commit = repo.commit(
        {
            "README.md": "---\nlicense: mit\n---\n",
            "data/train-00000-of-00001.parquet": Pattern("parquet", 100_000),
            "data/test.csv": "a,b\n" + "1,2\n" * 1000,
        }
    )
    repo.ref("refs/convert/parquet", commit)
    return repo


def space_repo() -> HubRepo:
    repo = HubRepo("org/app", "space")
    repo.commit({"app.py": "print('hello')\n", "README.md": "---\nsdk: gradio\n---\n"})
    return repo


def kernel_repo() -> HubRepo:
    repo = HubRepo("org/kern", "kernel")
    repo.commit({"build/torch-cuda/__init__.py": "", "metadata.json": "{}"})
    return repo


def canonical_repo() -> HubRepo:
    """One of the old repos without an organisation."""
    repo = HubRepo("gpt0")
    repo.commit({"config.json": "{}", "pytorch_model.bin": Pattern("gpt0", 70_000)})
    return repo


STRANGE_NAMES = (
    "with space.txt",
    "100%.txt",
    "a%2Fb.txt",
    "hash#tag.txt",
    "question?mark.txt",
    "quote'single.txt",
    'quote"double.txt',
    "back\\slash.txt",
    "semi;colon&amp.txt",
    "star*[brackets].txt",
    "ünïcödé-日本語-😀.txt",
    "-dash.txt",
    ".hidden",
    "dir with space/file name.txt",
    "x" * 255,
)


def strange_names_repo() -> HubRepo:
    """Names that shells, URLs and JSON stumble over; one has all the 255 bytes a name may have."""
    repo = HubRepo("org/strange")
    files: dict[str, bytes | str | HubFile] = {name: f"content of {name!r}\n" for name in STRANGE_NAMES}
    repo.commit(files)
    return repo


def serve(hub: HubProcess, repo_id: str, files: dict[str, ContentLike] | None = None, **how) -> HubRepo:
    """A repo of one commit that the Hub has from now on."""
    repo = HubRepo(repo_id, **how)
    repo.commit(files or {"config.json": '{"a": 1}', "model.bin": Pattern(repo_id, 3 * MIB + 17)})
    hub.add(repo)
    return repo


def all_repos() -> list[HubRepo]:
    return [
        transformers_repo(),
        diffusers_repo(),
        single_files_repo(),
        dataset_repo(),
        space_repo(),
        kernel_repo(),
        canonical_repo(),
        strange_names_repo(),
    ]
