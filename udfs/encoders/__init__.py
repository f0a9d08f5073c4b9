"""Encoders: from decoded items to vectors. They run without Spark; torch is imported only when a model loads.

The driver calls `fit` once and stores the `EncoderSpec` (a row of the encoders table); a worker calls `load`,
which keeps the model for all tasks of its process, and then `Encoder.encode`.
"""

from .base import Encoder, EncoderSpec, clear_cache, encoder_kind, fit, load

__all__ = ["Encoder", "EncoderSpec", "clear_cache", "encoder_kind", "fit", "load"]
