"""The section `anchor` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from mira_megatron.records import NUM_SLOTS


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorConfig:
    """How anchors are found in a group's judgments."""

    num_starts: int  # of KMeans; the best is taken
    num_reference_anchors: int  # the largest clusters get calibration references; the paper's: 12
    near_duplicate_cosine: float  # centres closer than this are listed as near duplicates
    merge_near_duplicates: bool  # False is faithful: names that repeat act as weights
    num_resamples: int  # of the records, to see how stable the anchors are; 0: not looked at
    max_resample_strings: int  # strings clustered per resample, at most

    def __post_init__(self) -> None:
        if self.num_starts < 1:
            raise ValueError(f"num_starts={self.num_starts} must be at least 1")
        if not 0 <= self.num_reference_anchors <= NUM_SLOTS:
            raise ValueError(
                f"num_reference_anchors={self.num_reference_anchors} must be in 0..{NUM_SLOTS}"
            )
        if not 0 < self.near_duplicate_cosine <= 1:
            raise ValueError(
                f"near_duplicate_cosine={self.near_duplicate_cosine} must be in (0, 1]"
            )
        if self.num_resamples < 0:
            raise ValueError(f"num_resamples={self.num_resamples} must not be negative")
        if self.max_resample_strings < NUM_SLOTS:
            raise ValueError(
                f"max_resample_strings={self.max_resample_strings} must be at least {NUM_SLOTS}"
            )
