"""The models, and their registration with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForVisualQuestionAnswering

from .attention import AttentionRequest
from .config import PixelBertConfig
from .fast import FastPixelBERT
from .inference_shape import InferenceShape
from .nlvr2 import PixelBertForNaturalLanguageVisualReasoning
from .outputs import (
    PixelBertForImageTextRetrievalOutput,
    PixelBertForNaturalLanguageVisualReasoningOutput,
    PixelBertForPreTrainingOutput,
    PixelBertForVisualQuestionAnsweringOutput,
    PixelBertOutput,
    PixelEmbeddings,
)
from .pixelbert import PixelBERT
from .pretraining import PixelBertForPreTraining
from .retrieval import PixelBertForImageTextRetrieval
from .vqa import PixelBertForVisualQuestionAnswering, answer_labels

AutoConfig.register("pixelbert", PixelBertConfig, exist_ok=True)
AutoModel.register(PixelBertConfig, FastPixelBERT, exist_ok=True)
AutoModelForPreTraining.register(PixelBertConfig, PixelBertForPreTraining, exist_ok=True)
AutoModelForVisualQuestionAnswering.register(
    PixelBertConfig, PixelBertForVisualQuestionAnswering, exist_ok=True
)

__all__ = [
    "AttentionRequest",
    "FastPixelBERT",
    "InferenceShape",
    "PixelBERT",
    "PixelBertConfig",
    "PixelBertForImageTextRetrieval",
    "PixelBertForImageTextRetrievalOutput",
    "PixelBertForNaturalLanguageVisualReasoning",
    "PixelBertForNaturalLanguageVisualReasoningOutput",
    "PixelBertForPreTraining",
    "PixelBertForPreTrainingOutput",
    "PixelBertForVisualQuestionAnswering",
    "PixelBertForVisualQuestionAnsweringOutput",
    "PixelBertOutput",
    "PixelEmbeddings",
    "answer_labels",
]
