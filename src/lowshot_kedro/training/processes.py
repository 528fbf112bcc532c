"""One or several processes that train together, and what each of them sees of the others.

Several are started on this machine (:mod:`~lowshot_kedro.training.launching`), by `torchrun`
(:mod:`~lowshot_kedro.training.torchrun`) or by SLURM (:mod:`~lowshot_kedro.training.slurm`). Torch
is imported when they begin to work, and not before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lowshot_kedro.child_processes import count_cores
from lowshot_kedro.devices import DEVICES, choose_device
from lowshot_kedro.parameters import AUTO, refuse, require_integer, require_one_of

if TYPE_CHECKING:
    import torch

Job = TypeVar("Job")
Result = TypeVar("Result")

SCHEDULERS = ("local", "slurm")
MAX_PROCESSES = 4096
_PROCESSES_OF_FEW_CORES = 8

# What torchrun tells the processes that it starts.
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """This process among those that do a piece of work together.

    Several are the default group of torch.distributed, whose collectives run by gloo for tensors on
    the CPU and by NCCL for those on GPUs. With one process nothing of torch.distributed is used.
    Every process has to call the methods in the same order as the others.

    Attributes:
        rank: The number of this process, from 0.
        n_processes: How many there are.
        device: Where this process computes.
        group: Of torch.distributed, to which they belong; None: the default one.
        first_rank: The number of the first of them in the default group.
    """

    rank: int
    n_processes: int
    device: torch.device
    group: Any = None
    first_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and tells people of progress."""
        return self.rank == 0

    @classmethod
    def of_default_group(cls, device: torch.device) -> Processes:
        """Those of torch.distributed's default group; this one alone where there is none.

        Args:
            device: Where this process computes.
        """
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            return cls(0, 1, device)
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    def gather(self, tensor: torch.Tensor, lengths: Sequence[int] | None = None) -> torch.Tensor:
        """The rows of all processes, in the order of their ranks.

        Args:
            tensor: (n, …) on the CPU or on the device; n may differ between processes and be 0, the
                rest of the shape and the type may not. No gradient flows back.
            lengths: The n of all processes; None: they tell each other.

        Returns:
            (sum of all n, …), the same in every process. While it is made, n_processes times the
            largest part is in memory besides.
        """
        if self.n_processes == 1:
            return tensor
        import torch

        tensor = tensor.detach()
        if lengths is None:
            lengths = self.stack(torch.tensor(len(tensor))).tolist()
        padded = tensor.new_zeros((max(lengths), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        parts = self.stack(padded)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    def stack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Tensors of one shape from all processes, (n_processes, …) in the order of their ranks.

        Args:
            tensor: On the CPU or on the device. No gradient flows back.
        """
        if self.n_processes == 1:
            return tensor[None]
        import torch
        from torch.distributed import all_gather

        tensor = tensor.detach().contiguous()
        parts = [torch.empty_like(tensor) for _ in range(self.n_processes)]
        all_gather(parts, tensor, group=self.group)
        return torch.stack(parts)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes of tensors of one shape.

        They are added in the order of the ranks, so that the sum has the same bits in every process
        and every run, which an all-reduce does not promise.

        Args:
            tensor: On the CPU or on the device. No gradient flows back.
        """
        if self.n_processes == 1:
            return tensor
        parts = self.stack(tensor)
        for part in parts[1:]:
            parts[0] += part
        return parts[0]

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace a tensor of each process by the sum over all, which has the same bits in all.

        Sums of integers are exact, so that they do not depend on who has added what. For sums of
        other numbers that are to depend on the ranks alone, see :meth:`sum`, which takes more
        memory.

        Args:
            tensor: On the CPU or on the device, contiguous, of one shape and type in all processes.
        """
        if self.n_processes > 1:
            from torch.distributed import all_reduce

            all_reduce(tensor, group=self.group)

    def parts(self, ranks: Sequence[range]) -> list[Processes | None]:
        """Some of the processes by themselves, several times.

        Args:
            ranks: The ranks of each part, without gaps. They may overlap.

        Returns:
            For each part the processes in it as this one sees them; None where it is none of them.
        """
        found: list[Processes | None] = []
        for part in ranks:
            group = None
            if 1 < len(part) < self.n_processes:
                from torch.distributed import new_group

                # All processes take part in making a group, those that are not in it too.
                group = new_group([self.first_rank + rank for rank in part])
            if self.rank not in part:
                found.append(None)
                continue
            here = part.index(self.rank)
            of_all = len(part) == self.n_processes
            found.append(
                replace(
                    self,
                    rank=here,
                    n_processes=len(part),
                    group=self.group if of_all else group,
                    first_rank=self.first_rank + part[0],
                )
            )
        return found

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in any process."""
        if self.n_processes == 1:
            return flag
        import torch

        return bool(self.stack(torch.tensor(int(flag))).any())

    def broadcast(self, value: Result) -> Result:
        """What the first process gives, in every process.

        Args:
            value: Of the first process: anything that can be pickled, small. Of the others: left
                aside.
        """
        if self.n_processes == 1:
            return value
        import torch
        from torch.distributed import broadcast_object_list

        values = [value]
        broadcast_object_list(
            values, src=self.first_rank, group=self.group, device=torch.device("cpu")
        )
        return values[0]

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.any(False)


@dataclass(frozen=True)
class ProcessOptions:
    """How many processes work together, and who starts them.

    Attributes:
        folder: Where SLURM's submission files, logs and results are until the work is done; on a
            file system that all nodes share. It belongs to one piece of work: a job of SLURM that
            is found there is waited for. Without meaning for `local`.
        n_processes: None: one for every GPU, one on a CPU; under `torchrun` as many as it has
            started; with SLURM as many as `cluster` asks for GPUs, or nodes.
        device: One of :data:`lowshot_kedro.devices.DEVICES`.
        scheduler: `local`: processes of this machine; `slurm`: a job of SLURM that is submitted by
            submitit and waited for.
        cluster: What SLURM is told, as submitit's `slurm_…` parameters without that beginning:
            time (minutes), partition, nodes, gpus_per_node, cpus_per_task, mem_gb, … Without
            meaning for `local`.
        max_restarts: How often processes of this machine begin their work again, when one of them
            was killed by a signal. For work that goes on from what it has left on disk.
    """

    folder: Path
    n_processes: int | None = None
    device: str = AUTO
    scheduler: str = "local"
    cluster: Mapping[str, Any] = field(default_factory=dict)
    max_restarts: int = 0

    def __post_init__(self) -> None:
        null = "one for every GPU, one on a CPU"
        require_integer("n_processes", self.n_processes, 1, MAX_PROCESSES, null=null)
        require_one_of("device", self.device, DEVICES)
        require_one_of("scheduler", self.scheduler, SCHEDULERS)
        if not isinstance(self.cluster, Mapping):
            raise refuse("cluster", self.cluster, "a section, such as {time: 600, nodes: 1}")
        require_integer("max_restarts", self.max_restarts, 0)


def run_in_processes(
    work: Callable[[Processes, Job], Result],
    job: Job,
    options: ProcessOptions,
    reached: Callable[[], object] | None = None,
) -> Result:
    """Do a piece of work in one process, in place, or in several together.

    Args:
        work: A function of a module, so that other processes find it. It is called in every process
            with what that sees of the others, and the job.
        job: Small and to be pickled: names of files rather than what is in them.
        options: How many processes, and who starts them.
        reached: How far the work has come, as told by what it has left on disk. Where that has
            changed, the count of restarts begins anew.

    Returns:
        What the first process (rank 0) returns, small and to be pickled.

    Raises:
        InputError: If the processes cannot be had, or if that is what one of them raised. The same
            holds for an OSError.
        RuntimeError: If one of them failed for another reason, with its traceback in the message.
        KeyboardInterrupt: At Ctrl-C, when all other processes have ended.
        SystemExit: If the work has ended with
            :class:`~lowshot_kedro.training.stopping.StoppedBySignal`.
    """
    check_processes(options)
    if options.scheduler == "slurm":
        from lowshot_kedro.training.slurm import run_by_slurm

        return run_by_slurm(work, job, options)
    if is_launched():
        from lowshot_kedro.training.torchrun import run_launched

        return run_launched(work, job, options.device)
    device = choose_device(options.device)
    n_processes = _number_here(options.n_processes, device)
    if n_processes == 1:
        return work(Processes(0, 1, device), job)
    from lowshot_kedro.training.launching import run_on_this_machine

    return run_on_this_machine(work, job, n_processes, options, reached)


def check_processes(options: ProcessOptions) -> None:
    """Refuse processes that cannot be had, before there is work for them.

    Raises:
        InputError: Naming the option that cannot be used.
    """
    if is_launched():
        n_launched = int(os.environ["WORLD_SIZE"])
        if options.scheduler != "local":
            raise refuse("scheduler", options.scheduler, "local, since torchrun has started it")
        if options.n_processes not in (None, n_launched):
            expected = f"{n_launched}, as many as torchrun has started, or null"
            raise refuse("n_processes", options.n_processes, expected)
    elif options.scheduler == "slurm":
        from lowshot_kedro.training.slurm import check_slurm

        check_slurm(options)
    else:
        _number_here(options.n_processes, choose_device(options.device))


def is_launched() -> bool:
    """Whether this process is one of several that `torchrun`, or the like, has started."""
    return all(name in os.environ for name in _VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


def _number_here(n_processes: int | None, device: torch.device) -> int:
    """How many processes of this machine are meant."""
    import torch

    if device.type != "cuda":
        limit = max(_PROCESSES_OF_FEW_CORES, 2 * count_cores())
        if n_processes is not None and n_processes > limit:
            raise refuse("n_processes", n_processes, f"at most {limit} on a CPU with so few cores")
        return 1 if n_processes is None else n_processes
    n_gpus = torch.cuda.device_count()
    if n_processes is not None and n_processes > n_gpus:
        expected = f"at most the number of GPUs, {n_gpus}, or device = cpu"
        raise refuse("n_processes", n_processes, expected)
    return n_gpus if n_processes is None else n_processes
