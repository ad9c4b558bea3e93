"""Distributed training under ``torchrun``: the processes of a run and their shares of a batch."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.utils.data import BatchSampler, Sampler

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among the processes of a run; the defaults mean a single process.

    Attributes
    ----------
    rank
        Number of this process, from 0.
    world
        Number of processes.
    local_rank
        Number of this process on its machine, which is also that of its GPU.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which alone writes files."""
        return self.rank == 0

    def share(self, value: T) -> T:
        """Return the value of the main process, which JSON can hold, in every process."""
        if self.world == 1:
            return value
        # The others must know the size before they can receive the content.
        device = f"cuda:{self.local_rank}" if dist.get_backend() == "nccl" else "cpu"
        text = json.dumps(value).encode() if self.is_main else b""
        size = torch.tensor(len(text), device=device)
        dist.broadcast(size, src=0)
        content = torch.zeros(int(size), dtype=torch.uint8, device=device)
        if self.is_main:
            content.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(content, src=0)
        shared: T = json.loads(bytes(content.cpu().tolist()))
        return shared

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean of a tensor over the processes."""
        if self.world > 1:
            dist.all_reduce(value)
            value = value / self.world
        return value

    def mean_count(self, count: torch.Tensor) -> torch.Tensor:
        """Return the mean of a whole number over the processes, at least 1 in all of them together.

        Each process divides its sum by this, so that the mean of the results is the sum over all
        divided by the number in all.
        """
        if self.world == 1:
            return count.clamp(min=1)
        total = count.double()
        dist.all_reduce(total)
        return total.clamp(min=1) / self.world

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def join_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the process group of ``torchrun``, if it started this process, and leave it at the end.

    Parameters
    ----------
    device
        The device setting of the run. CUDA processes get a GPU each and communicate through NCCL,
        others through gloo.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes()
        return
    processes = Processes(int(os.environ["RANK"]), world, int(os.environ.get("LOCAL_RANK", "0")))
    use_cuda = device.startswith(("auto", "cuda")) and torch.cuda.is_available()
    if use_cuda:
        torch.cuda.set_device(processes.local_rank)
    if not processes.is_main:
        logging.getLogger("src").setLevel(logging.WARNING)
    dist.init_process_group("nccl" if use_cuda else "gloo")
    try:
        yield processes
    finally:
        dist.destroy_process_group()


class SharedBatchSampler(Sampler[list[int]]):
    """Divides each batch among the processes, which together train on what one alone would.

    Parameters
    ----------
    order
        Order of the records, the same in every process.
    batch_size
        Records per batch over all processes. A last batch that does not divide evenly is cut.
    processes
        This process and the number of all.

    Raises
    ------
    ValueError
        If `batch_size` is not a multiple of the number of processes.
    """

    def __init__(self, order: Sampler[int], batch_size: int, processes: Processes) -> None:
        if batch_size % processes.world:
            raise ValueError(
                f"batch_size is {batch_size}: expected a multiple of the "
                f"{processes.world} processes"
            )
        self.batches = BatchSampler(order, batch_size, drop_last=False)
        self.processes = processes
        n_records = len(order)  # type: ignore[arg-type]
        self._length = n_records // batch_size + (n_records % batch_size >= processes.world)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[int]]:
        rank, world = self.processes.rank, self.processes.world
        for batch in self.batches:
            n_shared = len(batch) - len(batch) % world
            if n_shared:
                yield batch[rank:n_shared:world]
