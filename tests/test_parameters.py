import copy
import dataclasses
import decimal
import fractions
import functools
import numbers

import numpy as np
import pytest

from lowshot_kedro.errors import InputError
from lowshot_kedro.graph.parameters import GraphParameters, stored_columns
from lowshot_kedro.methods import METHODS
from lowshot_kedro.metrics import EvaluationParameters
from lowshot_kedro.project.parameters import SECTIONS, read_parameters, with_new_names
from lowshot_kedro.sweep.parameters import read_sweep

VALID = {
    "demonstration": {"enabled": True, "seed": 0, "image_size": 32},
    "experiment": {"mode": "test", "n_labeled": 2, "seed": 1, "unlabeled": "background"},
    "features": {
        "extractor": "efficientnet_lite0", "weights": "package", "image_size": 96,
        "batch_size": 64, "num_workers": 0, "device": "auto", "precision": "auto",
        "compile": "auto",
    },
    "pca": {"n_components": 256, "random_rotation": True, "max_train_rows": 1000},
    "graph": {
        "k": 30, "n_background": None, "stored_k": 32, "method": "auto", "target_recall": 0.99,
        "memory_budget_gb": None, "recall_sample": 1000,
    },
    "diffusion": {
        "n_iterations": 3, "backend": "auto", "precision": "float32", "class_slice": "auto",
        "memory_budget_gb": None, "edge_weight": "constant", "sigma": 0.5, "local_neighbor": 8,
        "reciprocal": False, "sinkhorn_rounds": 0, "power": 1, "clamping": False,
        "class_prior": "uniform",
    },
    "baseline": {"method": "logistic_regression"},
    "logistic_regression": {
        "lr": 0.001, "weight_decay": 0.01, "batch_size": 128, "max_iterations": 100,
        "momentum": 0.0, "eval_every": 10,
    },
    "evaluation": {"top_k": [1, 5], "combination_weight": 0.5, "n_images": 8},
    "snca": {
        "epochs": 3, "batch_size": 8, "accumulated_batches": 1, "lr": 0.1, "lr_schedule": "step",
        "lr_step_epochs": 2, "lr_gamma": 0.1, "momentum": 0.9, "nesterov": True,
        "weight_decay": 0.001, "augmentation": "shift", "image_size": 32, "seed": 0,
        "eval_every": 1, "checkpoint_minutes": 10, "num_workers": "auto", "device": "auto",
        "precision": "auto", "n_processes": "auto", "scheduler": "local", "cluster": {},
        "network": "small", "weights": "none", "dimension": 16, "classes": "base",
        "temperature": 0.05, "margin": 0.0, "bank_momentum": 0.5, "bank_momentum_changes": {},
        "eval_k": [1, 5], "eval_temperature": None, "eval_n_labeled": [1], "eval_seeds": [1, 2],
        "n_images": 3,
    },
    "deepercluster": {
        "epochs": 3, "batch_size": 16, "accumulated_batches": 1, "lr": 0.1,
        "lr_schedule": "constant", "lr_step_epochs": 2, "lr_gamma": 0.1, "momentum": 0.9,
        "nesterov": False, "weight_decay": 0.001, "augmentation": "shift", "image_size": 32,
        "seed": 0, "eval_every": 1, "checkpoint_minutes": 10, "num_workers": "auto",
        "device": "auto", "precision": "auto", "n_processes": "auto", "scheduler": "local",
        "cluster": {}, "images_path": None, "network": "small_vgg16", "sobel": True,
        "weights": "none", "dimension": 4096, "n_super_classes": 16, "rotation": True,
        "n_clusters": 32, "clusters_per_super": "fixed", "cluster_every": 3, "n_components": 16,
        "n_whitening_images": None, "n_iterations": 10, "images_per_epoch": None,
        "memory_budget_gb": 1.0, "n_clusters_shown": 8, "n_images": 10,
    },
    "episodes": {
        "dataset": "environment", "data_path": None, "class_order": "sorted", "split": "test",
        "classes": "all", "n_way": 5,
        "n_shot": 1, "n_query": 15, "n_episodes": 100, "seed": 1, "order": "direct",
        "methods": "all", "backbone": "ResNet12", "weights": "none", "image_size": None,
        "batch_size": 8, "num_workers": 0, "device": "auto", "precision": "auto", "n_images": 2,
    },
    "deepemd": {
        "temperature": 12.5, "solver": "native", "feature_pyramid": [2, 3], "patch_list": [2],
        "patch_ratio": 2.0, "n_patches": 9, "prototype_lr": 100, "prototype_passes": 10,
        "prototype_batch_size": 4,
    },
    "sweep": {
        "methods": [
            "nearest_class_mean", "nearest_neighbors", "label_spreading", "logistic_regression",
            "diffusion", "combined",
        ],
        "n_labeled": [1, 2], "seeds": [1, 2, 3], "validation_seeds": [1, 2], "metric": "top1",
        "unlabeled": ["background"], "n_background": [0, None],
        "logistic_regression": {
            "lr": [0.1, 0.01], "weight_decay": [0, 0.1], "batch_size": [16, 32],
            "max_iterations": 100, "eval_every": 40,
        },
        "diffusion": {"k": [5, 10], "edge_weight": ["constant"], "n_iterations": 4},
        "nearest_neighbors": {"k": [1, 3]},
        "label_spreading": {
            "alpha": [0.2, 0.8], "n_neighbors": 7, "max_iterations": 30, "max_images": 1000,
        },
        "combination_weights": [0, 0.5, 1], "scheduler": "local", "cluster": {}, "n_workers": 0,
        "memory_budget_gb": None, "max_tries": 3,
    },
    "reporting": {"show_resources": False},
}  # fmt: skip

# The names that people type, which do not change.
PUBLIC_NAMES = {
    "experiment": {"mode", "n_labeled", "seed", "unlabeled"},
    "features": {
        "extractor", "weights", "image_size", "batch_size", "num_workers", "device", "precision",
        "compile",
    },
    "pca": {"n_components", "random_rotation"},
    "graph": {
        "k", "n_background", "stored_k", "method", "target_recall", "memory_budget_gb",
        "recall_sample",
    },
    "diffusion": {"n_iterations", "class_slice", "edge_weight", "backend", "precision"},
    "logistic_regression": {
        "lr", "weight_decay", "batch_size", "max_iterations", "momentum", "eval_every",
    },
    "evaluation": {"top_k"},
    "snca": {
        "network", "weights", "dimension", "classes", "temperature", "margin", "bank_momentum",
        "bank_momentum_changes", "epochs", "batch_size", "lr", "n_processes", "scheduler",
    },
    "deepercluster": {
        "images_path", "network", "sobel", "weights", "dimension", "n_super_classes", "rotation",
        "n_clusters", "clusters_per_super", "cluster_every", "n_components", "n_iterations",
        "epochs", "batch_size", "lr", "n_processes", "scheduler", "memory_budget_gb",
    },
    "episodes": {
        "dataset", "data_path", "split", "n_way", "n_shot", "n_query", "n_episodes", "seed",
        "methods", "backbone", "weights", "image_size",
    },
    "deepemd": {
        "temperature", "solver", "feature_pyramid", "patch_list", "patch_ratio", "n_patches",
        "prototype_lr", "prototype_passes", "prototype_batch_size",
    },
    "sweep": {
        "methods", "n_labeled", "seeds", "validation_seeds", "metric", "unlabeled", "n_background",
        "logistic_regression", "diffusion", "nearest_neighbors", "label_spreading",
        "combination_weights", "scheduler", "cluster", "n_workers", "memory_budget_gb", "max_tries",
    },
}  # fmt: skip

# Sections that need not be there.
WITH_DEFAULTS = {"snca", "deepercluster", "episodes", "deepemd"}

ANY_COUNT = "an integer from 1 to 2147483647"
NOT_NEGATIVE = "an integer from 0 to 2147483647"

MOMENTA = "momenta from 0, below 1, by epoch"

REFUSED = [
    ("snca.epochs", 0, ANY_COUNT),
    ("snca.batch_size", 2.5, ANY_COUNT),
    ("snca.accumulated_batches", 0, ANY_COUNT),
    ("snca.lr", -0.1, "a number of at least 0"),
    ("snca.lr_schedule", "steps", r"one of: constant, step, cosine \(did you mean step\?\)"),
    ("snca.lr_step_epochs", 0, ANY_COUNT),
    ("snca.lr_gamma", 1.5, "a number from 0 to 1"),
    ("snca.momentum", 1.0, "a number of at least 0 and below 1"),
    ("snca.nesterov", "yes", "true or false"),
    ("snca.weight_decay", "small", "a number of at least 0"),
    ("snca.augmentation", "imagnet", r"one of: .*\(did you mean imagenet\?\)"),
    ("snca.image_size", 7, "an integer from 8 to 4096"),
    ("snca.image_size", None, "an integer from 8 to 4096"),
    ("snca.seed", -1, NOT_NEGATIVE),
    ("snca.eval_every", 0, ANY_COUNT),
    ("snca.checkpoint_minutes", -1, "a number of at least 0"),
    ("snca.num_workers", -1, "an integer from 0 to 1024, or auto"),
    ("snca.device", "gpu", "one of: auto, cpu, cuda"),
    ("snca.precision", "float16", "one of: auto, float32, bfloat16"),
    ("snca.n_processes", 0, "an integer from 1 to 4096, or auto"),
    ("snca.scheduler", "slurmm", r"one of: local, slurm \(did you mean slurm\?\)"),
    ("snca.cluster", ["gpu"], "options of SLURM"),
    ("snca.keep_every", 0, ANY_COUNT),
    ("snca.max_restarts", -1, "an integer from 0 to 1000"),
    ("deepercluster.images_path", 3, "a folder, or null"),
    ("deepercluster.images_path", "", "a folder, or null"),
    ("deepercluster.network", "vgg19", "one of: vgg16, small_vgg16"),
    ("deepercluster.sobel", "yes", "true or false"),
    ("deepercluster.weights", "", "none, download, package:MODULE/FILE or a file"),
    ("deepercluster.dimension", 1, "an integer from 2 to 65536"),
    ("deepercluster.n_super_classes", 6, "a multiple of 4"),
    ("deepercluster.rotation", 1, "true or false"),
    ("deepercluster.batch_size", 24, "a multiple of n_super_classes, 16"),
    ("deepercluster.n_clusters", 3, "an integer from 4"),
    ("deepercluster.n_clusters", 33, "a multiple of 4, the super-clusters"),
    ("deepercluster.clusters_per_super", "even", "one of: fixed, proportional"),
    ("deepercluster.cluster_every", 0, ANY_COUNT),
    ("deepercluster.n_components", 4097, "an integer from 1 to 4096"),
    ("deepercluster.n_whitening_images", 1, "an integer from 2"),
    ("deepercluster.n_iterations", 0, ANY_COUNT),
    ("deepercluster.images_per_epoch", 0, "an integer from 1"),
    ("deepercluster.memory_budget_gb", 0, "a number of at least 0.01"),
    ("deepercluster.n_clusters_shown", 0, "an integer from 1 to 100"),
    ("deepercluster.n_images", 101, "an integer from 1 to 100"),
    ("snca.network", "resnet18", r"one of: .*\(did you mean torchvision/resnet18\?\)"),
    ("snca.network", 18, "one of: small"),
    ("snca.weights", "", "none, download, package:MODULE/FILE or a file"),
    ("snca.dimension", 1, "an integer from 2 to 65536"),
    ("snca.classes", "novel", "one of: base, all"),
    ("snca.temperature", 0, "a number of at least 0.002 and at most 100"),
    ("snca.margin", -1, "a number of at least 0 and at most 2"),
    ("snca.bank_momentum", 1, "a number of at least 0 and below 1"),
    ("snca.bank_momentum_changes", [0.5], MOMENTA),
    ("snca.bank_momentum_changes", {"x": 0.5}, MOMENTA),
    ("snca.bank_momentum_changes", {80: 1.0}, MOMENTA),
    ("snca.bank_momentum_changes", {-1: 0.5}, MOMENTA),
    ("snca.eval_k", [], "a list with at least one entry"),
    ("snca.eval_k", 5, "a list"),
    ("snca.eval_temperature", 0.001, "a number of at least 0.002 and at most 100"),
    ("snca.n_images", 0, "an integer from 1 to 100"),
    ("demonstration.enabled", 1, "true or false"),
    ("demonstration.enabled", "false", "true or false"),
    ("demonstration.seed", -1, NOT_NEGATIVE),
    ("demonstration.image_size", 7, "an integer from 8 to 1024"),
    ("experiment.mode", "train", "one of: test, val"),
    ("experiment.mode", None, "one of: test, val"),
    ("experiment.n_labeled", 0, rf"{ANY_COUNT}, or null = all that are given"),
    ("experiment.n_labeled", "all", rf"{ANY_COUNT}, or null = all that are given"),
    ("experiment.n_labeled", 2.0, ANY_COUNT),
    ("experiment.n_labeled", True, ANY_COUNT),
    ("experiment.seed", 2**31, NOT_NEGATIVE),
    ("experiment.seed", "1", NOT_NEGATIVE),
    ("experiment.unlabeled", "all", "one of: background, train, both, none"),
    ("experiment.unlabeled", ["train"], "one of: background, train, both, none"),
    ("features.extractor", "resnet", "one of: .*efficientnet_lite0"),
    ("features.extractor", "resnet50", r"one of: .*\(did you mean ResNet50\?\)"),
    ("features.extractor", "resnet/ResNet50", "one of: .*timm/NAME or torchvision/NAME"),
    ("features.extractor", "timm/", "one of: .*timm/NAME or torchvision/NAME"),
    ("features.extractor", None, "one of: "),
    ("features.extractor", ["timm/resnet50"], "one of: "),
    ("features.weights", "", "none, download, package, package:MODULE/FILE or a file"),
    ("features.weights", None, "none, download, package, package:MODULE/FILE or a file"),
    ("features.image_size", 31, "an integer from 32 to 4096, or null = the network's own"),
    ("features.image_size", 4097, "an integer from 32 to 4096, or null = the network's own"),
    ("features.image_size", "auto", "an integer from 32 to 4096, or null = the network's own"),
    ("features.batch_size", 0, ANY_COUNT),
    ("features.batch_size", "auto", ANY_COUNT),
    ("features.num_workers", -1, "an integer from 0 to 1024, or auto"),
    ("features.num_workers", 1025, "an integer from 0 to 1024, or auto"),
    ("features.num_workers", None, "an integer from 0 to 1024, or auto"),
    ("features.num_workers", "all", "an integer from 0 to 1024, or auto"),
    ("features.num_workers", True, "an integer from 0 to 1024, or auto"),
    ("features.device", "gpu", "one of: auto, .*cuda"),
    (
        "features.precision",
        "float8",
        r"one of: auto, float32, bfloat16 \(did you mean float32\?\)$",
    ),
    ("features.compile", "yes", "true, false or auto"),
    ("features.compile", None, "true, false or auto"),
    ("features.compile", 1, "true, false or auto"),
    ("pca.n_components", 0, ANY_COUNT),
    ("pca.random_rotation", 0, "true or false"),
    ("pca.max_train_rows", 0, ANY_COUNT),
    ("pca.max_train_rows", 256, "more than n_components = 256"),
    ("graph.k", 0, "an integer from 1 to 1024"),
    ("graph.k", 1025, "an integer from 1 to 1024, or auto$"),
    ("graph.k", "foo", "an integer from 1 to 1024, or auto$"),
    ("graph.k", "AUTO", "an integer from 1 to 1024, or auto$"),
    ("graph.k", 1.5, "an integer from 1 to 1024, or auto$"),
    ("graph.k", None, "an integer from 1 to 1024, or auto$"),
    ("graph.n_background", -1, "an integer from 0 to 2147483647, or null = all"),
    ("graph.n_background", "all", "an integer from 0 to 2147483647, or null = all"),
    ("graph.stored_k", 0, "an integer from 1 to 1024"),
    ("graph.stored_k", 2048, "an integer from 1 to 1024"),
    ("graph.method", "hnsw", "one of: auto, exact, ivf, descent, pynndescent; or a description"),
    ("graph.method", "IVF16,PQ7", "one of: auto, .* HNSW32 .for 256 columns.$"),
    ("graph.method", "", "one of: auto, .*; or a description for faiss.index_factory$"),
    ("graph.method", None, "one of: auto, .*; or a description for faiss.index_factory$"),
    ("graph.target_recall", 0, "a number from 0.01 to 1"),
    ("graph.target_recall", 1.01, "a number from 0.01 to 1"),
    ("graph.target_recall", float("nan"), "a number from 0.01 to 1"),
    ("graph.target_recall", "0.9", "a number from 0.01 to 1"),
    ("graph.memory_budget_gb", -1, "a number of at least 0"),
    ("graph.memory_budget_gb", "8", "a number of at least 0"),
    ("graph.memory_budget_gb", True, "a number of at least 0"),
    ("graph.recall_sample", 0, ANY_COUNT),
    ("graph.recall_sample", 10.5, ANY_COUNT),
    ("diffusion.n_iterations", -1, "an integer from 0 to 10000, or auto$"),
    ("diffusion.n_iterations", "AUTO", "an integer from 0 to 10000, or auto$"),
    ("diffusion.n_iterations", 2.5, "an integer from 0 to 10000, or auto$"),
    ("diffusion.n_iterations", True, "an integer from 0 to 10000, or auto$"),
    ("diffusion.class_slice", -1, NOT_NEGATIVE + ", or auto"),
    ("diffusion.class_slice", "all", NOT_NEGATIVE + ", or auto"),
    ("diffusion.memory_budget_gb", -1, "a number of at least 0"),
    ("diffusion.memory_budget_gb", "8", "a number of at least 0"),
    ("diffusion.edge_weight", "cosine", "one of: constant, gaussian, locally_scaled"),
    ("diffusion.sigma", 0, "a number of at least 0.001"),
    ("diffusion.local_neighbor", 0, "an integer from 1 to 1024"),
    ("diffusion.reciprocal", 1, "true or false"),
    ("diffusion.sinkhorn_rounds", -1, "an integer from 0 to 10000"),
    ("diffusion.power", 0, "a number of at least 0.01 and below 100"),
    ("diffusion.power", 100, "a number of at least 0.01 and below 100"),
    ("diffusion.clamping", "yes", "true or false"),
    ("diffusion.class_prior", "base", "one of: uniform, labeled"),
    ("diffusion.class_prior", None, "one of: uniform, labeled"),
    ("diffusion.class_prior", [0.5, -1], "numbers of at least 0"),
    ("diffusion.backend", "cuda", "one of: auto, native, torch, mkl, scipy"),
    ("diffusion.precision", "float64", "one of: float32, bfloat16"),
    ("logistic_regression.lr", -0.1, "a number of at least 0"),
    ("logistic_regression.lr", "0.1", "a number of at least 0"),
    ("logistic_regression.lr", float("nan"), "a number of at least 0"),
    ("logistic_regression.weight_decay", -1, "a number of at least 0"),
    ("logistic_regression.batch_size", 0, ANY_COUNT),
    ("logistic_regression.max_iterations", 0, ANY_COUNT),
    ("logistic_regression.momentum", 1, "a number of at least 0 and below 1"),
    ("logistic_regression.momentum", True, "a number of at least 0 and below 1"),
    ("logistic_regression.eval_every", 0, ANY_COUNT),
    ("evaluation.top_k", 5, "a list of integers, such as"),
    ("evaluation.top_k", [], "a list of integers, such as"),
    ("evaluation.combination_weight", 1.1, "a number from 0 to 1"),
    ("evaluation.combination_weight", -0.1, "a number from 0 to 1"),
    ("evaluation.n_images", 0, "an integer from 1 to 100"),
    ("sweep.methods", "diffusion", "a list, such as"),
    ("sweep.methods", [], "a list with at least one entry"),
    ("sweep.methods", ["diffusion", "combined"], "logistic_regression beside combined"),
    ("sweep.methods", ["combined", "logistic_regression"], "diffusion beside combined"),
    ("sweep.n_labeled", 5, "a list, such as"),
    ("sweep.n_labeled", {"first": 1}, "a list, such as"),
    ("sweep.seeds", [], "a list with at least one entry"),
    ("sweep.validation_seeds", None, "a list, such as"),
    ("sweep.n_background", None, "a list, such as"),
    ("sweep.combination_weights", 0.5, "a list, such as"),
    ("sweep.metric", "accuracy", "top1, top1_novel, top1_base or the same of another"),
    ("sweep.metric", "top0", "top1, top1_novel, top1_base or the same of another"),
    ("sweep.metric", "top1_other", "top1, top1_novel, top1_base or the same of another"),
    ("sweep.metric", None, "top1, top1_novel, top1_base or the same of another"),
    ("sweep.logistic_regression", [1], "a section of parameters"),
    ("sweep.diffusion", None, "a section of parameters"),
    ("sweep.scheduler", "", "local, the address of a Dask scheduler, or a batch system"),
    ("sweep.scheduler", None, "local, the address of a Dask scheduler, or a batch system"),
    ("sweep.cluster", "short", "a section, such as {queue: short}"),
    ("sweep.n_workers", -1, "an integer from 0 to 100000, or auto"),
    ("sweep.n_workers", "all", "an integer from 0 to 100000, or auto"),
    ("sweep.memory_budget_gb", -1, "a number of at least 0"),
    ("sweep.memory_budget_gb", "8", "a number of at least 0"),
    ("sweep.max_tries", 0, "an integer from 1 to 1000"),
    ("sweep.logistic_regression.lr", 0.1, "a list, such as"),
    ("sweep.logistic_regression.weight_decay", [], "a list with at least one entry"),
    ("sweep.logistic_regression.max_iterations", 0, ANY_COUNT),
    ("sweep.logistic_regression.eval_every", 0, ANY_COUNT),
    ("sweep.diffusion.k", 30, "a list, such as"),
    ("sweep.diffusion.n_iterations", 0, "an integer from 1 to 10000"),
    ("sweep.nearest_neighbors.k", "1", "a list, such as"),
    ("sweep.label_spreading.n_neighbors", 0, ANY_COUNT),
    ("sweep.label_spreading.max_iterations", None, ANY_COUNT),
    ("sweep.label_spreading.max_images", 1.5, ANY_COUNT),
]

# Entries of lists, each of which is refused by itself.
ENTRIES_REFUSED = [
    ("sweep.methods", "svm", f"one of: {', '.join(METHODS)}"),
    ("sweep.n_labeled", 0, ANY_COUNT),
    ("sweep.n_labeled", True, ANY_COUNT),
    ("sweep.n_labeled", "1", ANY_COUNT),
    ("sweep.seeds", -1, NOT_NEGATIVE),
    ("sweep.seeds", 2**31, NOT_NEGATIVE),
    ("sweep.validation_seeds", 0.5, NOT_NEGATIVE),
    ("sweep.unlabeled", "none", "one of: background, train, both$"),
    ("sweep.n_background", -1, NOT_NEGATIVE + ", or null = all"),
    ("sweep.n_background", "all", NOT_NEGATIVE + ", or null = all"),
    ("sweep.combination_weights", 1.1, "a number from 0 to 1"),
    ("sweep.combination_weights", -0.1, "a number from 0 to 1"),
    ("sweep.logistic_regression.lr", -0.1, "a number of at least 0"),
    ("sweep.logistic_regression.lr", "1e-3", "a number of at least 0"),
    ("sweep.logistic_regression.weight_decay", float("inf"), "a number of at least 0"),
    ("sweep.logistic_regression.batch_size", 0, ANY_COUNT),
    ("sweep.logistic_regression.batch_size", 16.0, ANY_COUNT),
    ("sweep.diffusion.k", 0, "an integer from 1 to 1024"),
    ("sweep.diffusion.k", 1025, "an integer from 1 to 1024"),
    ("sweep.diffusion.edge_weight", "cosine", "one of: constant, gaussian, locally_scaled"),
    ("sweep.nearest_neighbors.k", 0, ANY_COUNT),
    ("sweep.label_spreading.alpha", 0, "a number above 0 and below 1"),
    ("sweep.label_spreading.alpha", 1, "a number of at least 0 and below 1"),
]

ACCEPTED = [
    ("experiment.mode", "val"),
    ("experiment.unlabeled", "none"),
    ("features.extractor", "ResNet10"),
    ("features.extractor", "timm/resnet50.a1_in1k"),
    ("features.extractor", "torchvision/resnet50"),
    ("features.weights", "download"),
    ("features.image_size", None),
    ("features.image_size", 32),
    ("features.image_size", 4096),
    ("features.num_workers", "auto"),
    ("features.num_workers", 1024),
    ("features.precision", "bfloat16"),
    ("features.compile", True),
    ("features.compile", False),
    ("pca.max_train_rows", None),
    ("graph.k", 32),
    ("graph.k", "auto"),
    ("graph.n_background", 0),
    ("graph.n_background", 100_000_000),
    ("graph.method", "pynndescent"),
    ("graph.method", "IVF4096,Flat"),
    ("graph.method", "IVF16,PQ8"),
    ("graph.target_recall", 0.01),
    ("graph.target_recall", 1),
    ("graph.memory_budget_gb", 0),
    ("graph.memory_budget_gb", 64.5),
    ("graph.recall_sample", 1),
    ("pca.max_train_rows", 257),
    ("diffusion.n_iterations", 0),
    ("diffusion.n_iterations", "auto"),
    ("diffusion.class_slice", 0),
    ("diffusion.class_slice", 5000),
    ("diffusion.memory_budget_gb", 0.5),
    ("diffusion.edge_weight", "locally_scaled"),
    ("diffusion.class_prior", "labeled"),
    ("diffusion.class_prior", [0.5, 0, 2]),
    ("diffusion.precision", "bfloat16"),
    ("logistic_regression.lr", 1),
    ("logistic_regression.momentum", 0.999),
    ("evaluation.top_k", [7]),
    ("evaluation.combination_weight", 0),
    ("evaluation.combination_weight", 1),
    ("experiment.unlabeled", "both"),
    ("sweep.methods", ["nearest_class_mean"]),
    ("sweep.methods", ["combined", "diffusion", "logistic_regression"]),
    ("sweep.n_labeled", [2**31 - 1]),
    ("sweep.n_labeled", [None, 1]),
    ("experiment.n_labeled", None),
    ("sweep.seeds", [0]),
    ("sweep.metric", "top5_novel"),
    ("sweep.unlabeled", ["train", "both"]),
    ("sweep.n_background", [None]),
    ("sweep.combination_weights", [0, 1]),
    ("sweep.scheduler", "tcp://10.0.0.1:8786"),
    ("sweep.cluster", {"queue": "short"}),
    ("sweep.n_workers", "auto"),
    ("sweep.n_workers", 100_000),
    ("sweep.memory_budget_gb", 0.5),
    ("sweep.max_tries", 1),
    ("sweep.logistic_regression.lr", [0]),
    ("sweep.logistic_regression.batch_size", [1]),
    ("sweep.diffusion.k", [1, 1024]),
    ("sweep.diffusion.edge_weight", ["gaussian", "locally_scaled"]),
    ("sweep.label_spreading.alpha", [0.001, 0.999]),
]


COMBINATIONS_REFUSED = [
    ({"precision": "bfloat16", "backend": "scipy"}, "expected float32, or backend native"),
    ({"precision": "bfloat16", "power": 2}, "expected float32 with power or clamping"),
    (
        {"precision": "bfloat16", "clamping": True},
        "expected float32 with power or clamping",
    ),
]


def changed(name, value):
    parameters = copy.deepcopy(VALID)
    *sections, parameter = name.split(".")
    section = parameters
    for section_name in sections:
        section = section[section_name]
    section[parameter] = value
    return parameters


@pytest.mark.parametrize(("values", "message"), COMBINATIONS_REFUSED)
def test_a_precision_that_does_not_go_with_the_rest_is_refused(values, message):
    parameters = copy.deepcopy(VALID)
    parameters["diffusion"].update(values)
    with pytest.raises(ValueError, match=f"diffusion.precision: got 'bfloat16', {message}"):
        read_parameters(parameters)


def test_valid_parameters_pass():
    read_parameters(VALID)


@pytest.mark.parametrize(("section", "names"), PUBLIC_NAMES.items())
def test_public_names_are_kept(section, names):
    section_class = SECTIONS[section]
    grids = (
        {name for name, method in METHODS.items() if method.grid} if section == "sweep" else set()
    )
    assert names <= {field.name for field in dataclasses.fields(section_class)} | grids


@pytest.mark.parametrize(("name", "value", "expected"), REFUSED)
def test_a_value_that_cannot_be_used_says_so(name, value, expected):
    with pytest.raises(ValueError, match=f"expected {expected}") as error:
        read_parameters(changed(name, value))
    assert str(error.value).startswith(f"{name}: got {value!r}, ")


@pytest.mark.parametrize(("name", "value", "expected"), ENTRIES_REFUSED)
def test_every_value_of_a_list_is_checked(name, value, expected):
    valid = functools.reduce(lambda section, part: section[part], name.split("."), VALID)
    with pytest.raises(ValueError, match=f"expected {expected}") as error:
        read_parameters(changed(name, [*valid, value]))
    assert str(error.value).startswith(f"{name}: got {value!r}, ")


@pytest.mark.parametrize(("name", "value"), ACCEPTED)
def test_the_ends_of_a_range_belong_to_it(name, value):
    read_parameters(changed(name, value))


@pytest.mark.parametrize("value", [[1, 0], [1, "5"], [2.5]])
def test_every_k_is_checked(value):
    with pytest.raises(ValueError, match=f"^evaluation.top_k: got .*, expected {ANY_COUNT}"):
        read_parameters(changed("evaluation.top_k", value))


@pytest.mark.parametrize("name", ["logistic_regression.lr", "logistic_regression.weight_decay"])
def test_an_infinite_number_is_refused(name):
    with pytest.raises(ValueError, match=f"^{name}: got inf"):
        read_parameters(changed(name, float("inf")))


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (section, name)
        for section, values in VALID.items()
        for name, value in values.items()
        if name == "cluster" or not isinstance(value, dict)
    ],
)
def test_every_parameter_is_needed_and_checked(section, name):
    parameters = copy.deepcopy(VALID)
    del parameters[section][name]
    if section in WITH_DEFAULTS:
        read_parameters(parameters)
    else:
        with pytest.raises(ValueError, match=f"^{section}.{name}: missing; expected it in conf/"):
            read_parameters(parameters)
    with pytest.raises(ValueError, match=f"^{section}.{name}: got"):
        read_parameters(changed(f"{section}.{name}", object()))


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (section, name)
        for section, values in VALID["sweep"].items()
        if section != "cluster" and isinstance(values, dict)
        for name in values
    ],
)
def test_every_parameter_of_a_grid_is_needed_and_checked(section, name):
    place = f"sweep.{section}.{name}"
    parameters = copy.deepcopy(VALID)
    del parameters["sweep"][section][name]
    with pytest.raises(ValueError, match=f"^{place}: missing; expected it in conf/"):
        read_parameters(parameters)
    with pytest.raises(ValueError, match=f"^{place}: got"):
        read_parameters(changed(place, object()))


def test_an_unknown_parameter_of_a_grid_suggests_a_near_one():
    expected = r"^sweep.diffusion.n_iteration: unknown .* mean sweep.diffusion.n_iterations\?\)"
    with pytest.raises(ValueError, match=expected):
        read_parameters(changed("sweep.diffusion.n_iteration", 3))


@pytest.mark.parametrize("section", VALID)
def test_sections_are_needed_and_are_mappings(section):
    others = {name: value for name, value in VALID.items() if name != section}
    if section in WITH_DEFAULTS:
        # A project that an earlier version has written does not know it.
        assert section in read_parameters(others)
    else:
        with pytest.raises(ValueError, match=f"^{section}: missing"):
            read_parameters(others)
    with pytest.raises(ValueError, match=f"^{section}: got 3, expected a section of parameters"):
        read_parameters(VALID | {section: 3})


def test_an_unknown_parameter_suggests_a_near_one():
    with pytest.raises(ValueError) as error:
        read_parameters(changed("graph.n_backgroud", 5))
    assert str(error.value) == (
        "graph.n_backgroud: unknown parameter (did you mean graph.n_background?); "
        "allowed: graph.k, graph.n_background, graph.stored_k, graph.method, graph.target_recall, "
        "graph.memory_budget_gb, graph.recall_sample"
    )


def test_an_unknown_parameter_without_a_near_one_lists_what_there_is():
    with pytest.raises(ValueError, match=r"^graph.zzz: unknown parameter; allowed: graph.k, "):
        read_parameters(changed("graph.zzz", 5))


def test_an_unknown_section_suggests_a_near_one():
    with pytest.raises(ValueError, match=r"^difusion: unknown .*\(did you mean diffusion\?\); all"):
        read_parameters(VALID | {"difusion": {}})


@pytest.mark.parametrize("section", VALID)
def test_sections_are_frozen(section):
    values = read_parameters(VALID)[section]
    for name in (field.name for field in dataclasses.fields(values)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(values, name, getattr(values, name))


def test_top_k_are_sorted_and_distinct():
    values = EvaluationParameters(top_k=[5, 1, 5], combination_weight=0.5, n_images=8)
    assert values.top_k == (1, 5)


@pytest.mark.parametrize(
    ("k", "stored_k", "expected"),
    [(1, 1, 1), (3, 1, 4), (30, 32, 32), (32, 32, 32), (33, 32, 64), (30, 128, 128), (40, 50, 64)],
)
def test_a_graph_is_stored_with_a_power_of_two_or_more_columns(k, stored_k, expected):
    assert stored_columns(k, stored_k) == expected
    assert graph_parameters(k=k, stored_k=stored_k).stored_k == expected


def graph_parameters(**changes):
    return GraphParameters(**(VALID["graph"] | changes))


@pytest.mark.parametrize(
    ("gigabytes", "n_bytes"), [(None, None), (0, 0), (1, 10**9), (2.5, 2_500_000_000)]
)
def test_a_memory_budget_is_in_gigabytes(gigabytes, n_bytes):
    assert graph_parameters(memory_budget_gb=gigabytes).memory_budget_bytes == n_bytes


# --- sweep ---


def sweep_parameters(**changes):
    return read_sweep(VALID["sweep"] | changes)


def test_lists_are_kept_in_their_order_each_value_once():
    values = sweep_parameters(n_labeled=[5, 1, 5, 2], n_background=[None, 0, 70, 0])
    assert values.n_labeled == (5, 1, 2)
    assert values.n_background == (None, 0, 70)
    # 1 and 1.0 are the same learning rate.
    grid = VALID["sweep"]["logistic_regression"] | {"lr": [1, 1.0, 0.1]}
    assert sweep_parameters(logistic_regression=grid).grids["logistic_regression"].lr == (1, 0.1)


def test_the_grids_of_a_sweep_are_frozen():
    values = sweep_parameters()
    for section in ("logistic_regression", "diffusion", "nearest_neighbors", "label_spreading"):
        grid = values.grids[section]
        for name in VALID["sweep"][section]:
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(grid, name, VALID["sweep"][section][name])


def test_unlabeled_images_come_with_every_size_of_background_they_can_have():
    values = sweep_parameters(unlabeled=["background", "train", "both"], n_background=[0, 70, None])
    assert [images.name for images in values.unlabeled_images] == [
        "nbg0", "nbg70", "nbgall", "train", "nbg0_train", "nbg70_train", "nbgall_train",
    ]  # fmt: skip


@pytest.mark.parametrize(("gigabytes", "n_bytes"), [(None, None), (1, 10**9), (2.5, 2_500_000_000)])
def test_the_memory_budget_of_a_sweep_is_in_gigabytes(gigabytes, n_bytes):
    assert sweep_parameters(memory_budget_gb=gigabytes).memory_budget_bytes == n_bytes


def test_a_sweep_survives_being_copied():
    # dataclasses.replace and pickling make it from what it holds, not from what people typed.
    values = sweep_parameters()
    assert dataclasses.replace(values) == values


HUGE = int("9" * 40)
LONGER_THAN_PYTHON_WRITES = 10**5000
ODD_VALUES = [
    0, -1, -0.0, 1, 3.0, 0.5, 1e-320, True, 2**31 - 1, 2**31, 2**32 + 3, 2**63 - 1, 2**63, 2**64,
    10**30, -(10**30), HUGE, 10**400, LONGER_THAN_PYTHON_WRITES, 1e38, 1e39, 1e300, -1e300,
    float("inf"), float("-inf"), float("nan"), "", "5", "1e300", "abc", b"x", 1j, None, {},
    {"a": 1}, [[1]], decimal.Decimal("1e300"), fractions.Fraction(10**400, 3), np.float64(1e300),
    np.int64(3), np.float32("inf"), object(), "x" * 10_000,
]  # fmt: skip


def every_name(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from every_name(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize("name", list(every_name(VALID)))
def test_an_odd_value_of_any_parameter_is_refused_in_one_line_or_fits_what_it_is_used_as(name):
    section_name = name.split(".")[0]
    lists = [[], *([value] for value in ODD_VALUES)]
    for value in [*ODD_VALUES, *lists]:
        parameters = changed(name, value)
        try:
            section = read_parameters(parameters)[section_name]
        except InputError as error:
            assert "\n" not in str(error)
            assert len(str(error)) < 700
            continue
        for number in numbers_of(dataclasses.asdict(section)):
            # What C and faiss take, and what vectors are multiplied by.
            assert abs(number) < 2**63
            assert np.isfinite(np.float32(number) ** 2)
        budget = getattr(section, "memory_budget_bytes", None)
        assert budget is None or 0 <= budget < 2**63


def numbers_of(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from numbers_of(part)
    elif isinstance(value, numbers.Real):
        yield value


@pytest.mark.parametrize(
    "name", ["graph.memory_budget_gb", "diffusion.memory_budget_gb", "sweep.memory_budget_gb"]
)
def test_a_budget_is_at_most_what_64_bits_count_in_bytes(name):
    section, _ = name.split(".")
    largest = read_parameters(changed(name, 10**9))[section]
    assert largest.memory_budget_bytes == 10**18
    half = read_parameters(changed(name, 0.5))[section]
    assert half.memory_budget_bytes == 500_000_000
    with pytest.raises(InputError, match=rf"^{name}: got 1e\+300, expected .* at most 1e\+09$"):
        read_parameters(changed(name, 1e300))


def test_the_baseline_needs_nothing_but_features():
    possible = [name for name, method in METHODS.items() if method.needs == "features"]
    expected = f"one of: {', '.join(possible)}"
    with pytest.raises(ValueError, match=f"^baseline.method: got 'diffusion', expected {expected}"):
        read_parameters(VALID | {"baseline": {"method": "diffusion"}})


def test_a_new_name_on_the_command_line_counts_more_than_an_old_one_in_a_file(caplog):
    merged = copy.deepcopy(VALID)
    merged["diffusion"] |= {"restore_labeled": True, "clamping": "abc"}
    typed = {"diffusion": {"clamping": "abc"}}
    assert with_new_names(merged, typed)["diffusion"]["clamping"] == "abc"
    assert with_new_names(merged, {})["diffusion"]["clamping"] is True
    typed = {"diffusion": {"restore_labeled": True}}
    assert with_new_names(merged, typed)["diffusion"]["clamping"] is True


def test_a_word_that_is_nearly_right_is_suggested():
    expected = r"^diffusion.backend: got 'nativ', expected one of: .* \(did you mean native\?\)$"
    with pytest.raises(ValueError, match=expected):
        read_parameters(changed("diffusion.backend", "nativ"))


def test_names_of_an_earlier_version_work_and_are_named_in_a_warning(caplog):
    old = copy.deepcopy(VALID)
    old["graph"]["memory_budget"] = 8
    old["evaluation"]["n_pictures"] = 3
    sections = read_parameters(with_new_names(old))
    assert (sections["graph"].memory_budget_gb, sections["evaluation"].n_images) == (8, 3)
    assert "graph.memory_budget: this parameter is called graph.memory_budget_gb now" in caplog.text
    assert "evaluation.n_pictures: this parameter is called evaluation.n_images" in caplog.text
    caplog.clear()
    assert with_new_names(VALID) == VALID
    assert not caplog.text
