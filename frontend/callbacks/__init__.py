"""Callbacks by Keras's names: what happens at the begin and end of training, epochs and batches."""

from __future__ import annotations

from gradloom.callbacks.backup_and_restore import BackupAndRestore
from gradloom.callbacks.callback import Callback, Logs
from gradloom.callbacks.callback_list import CallbackList
from gradloom.callbacks.csv_logger import CSVLogger
from gradloom.callbacks.early_stopping import EarlyStopping
from gradloom.callbacks.history import History
from gradloom.callbacks.lambda_callback import LambdaCallback
from gradloom.callbacks.learning_rates import LearningRateScheduler, ReduceLROnPlateau
from gradloom.callbacks.model_checkpoint import ModelCheckpoint
from gradloom.callbacks.monitor import MonitorCallback
from gradloom.callbacks.progress import ProgbarLogger, TestLogger, format_line, is_terminal, open_bar, update_bar
from gradloom.callbacks.terminate_on_nan import TerminateOnNaN

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "Logs",
    "ModelCheckpoint",
    "MonitorCallback",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
    "TestLogger",
    "format_line",
    "is_terminal",
    "open_bar",
    "update_bar",
]
