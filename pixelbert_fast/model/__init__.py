"""The models, and their registration with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForPreTraining

from .attention import AttentionRequest
from .config import PixelBertConfig
from .fast import FastPixelBERT
from .inference_shape import InferenceShape
from .outputs import PixelBertForPreTrainingOutput, PixelBertOutput, PixelEmbeddings
from .pixelbert import PixelBERT
from .pretraining import PixelBertForPreTraining

AutoConfig.register("pixelbert", PixelBertConfig, exist_ok=True)
AutoModel.register(PixelBertConfig, FastPixelBERT, exist_ok=True)
AutoModelForPreTraining.register(PixelBertConfig, PixelBertForPreTraining, exist_ok=True)

__all__ = [
    "AttentionRequest",
    "FastPixelBERT",
    "InferenceShape",
    "PixelBERT",
    "PixelBertConfig",
    "PixelBertForPreTraining",
    "PixelBertForPreTrainingOutput",
    "PixelBertOutput",
    "PixelEmbeddings",
]
