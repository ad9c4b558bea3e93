"""What each quality flag means, in a sentence for readers of the report.

docs/quality.md and docs/formats.md have the measures and limits.
"""

from __future__ import annotations

FLAG_MEANINGS = {
    # Of signals
    "gap_filled": "Missing samples were interpolated.",
    "no_samples": "The lead has no valid sample and counts as absent.",
    "offset": "The lead lies far from zero.",
    "flat": "The lead does not move: its electrode was off, or it was not recorded.",
    "flat_part": "The lead stands still for a while, as with a loose electrode.",
    "clipped": "Waves are cut at the highest or lowest value that the device can store.",
    "amplitude": "A sample lies farther from zero than a heart can cause.",
    "wander": "The baseline moves strongly, mostly by breathing or motion.",
    "noise": "Noise between beats, mostly of muscles.",
    "burst": "Noise for a part of the time, mostly of muscles or motion.",
    "hum50": "Mains hum of 50 Hz.",
    "hum60": "Mains hum of 60 Hz.",
    "gain_low": "All waves are unusually small: check the gain.",
    "gain_high": "All waves, or those of the lead, are unusually large: check the gain.",
    "limb_equation": "Limb leads do not add up, so one of them is wrong or filtered differently.",
    "limb_swap": "Two limb electrodes were probably exchanged.",
    "chest_order": "The chest leads are probably in reverse order.",
    "not_an_ecg": "Nothing like beats: noise, a test signal or another biosignal.",
    # Of leads
    "single_lead_as_I": "The only lead has no known name and was taken for lead I.",
    "unknown_lead": "A lead with a name outside the twelve was not used.",
    "repeated_lead": "A lead occurs twice; the first was used.",
    "derived": "The limb lead was computed from two others.",
    "lead_off": "The electrode was probably off: the device said so, or there is only faint noise.",
    # Of files
    "gain_negative": "The file states a gain below zero, which was applied.",
    "gain_not_applied": "The stated gain was left out, because the samples are voltages already.",
    "fs_not_understood": "The stated sampling rate is none; the one given by hand was used.",
    "lead_names_assumed": "The file does not name its leads; the standard order was assumed.",
    "fs_assumed": "The file does not state its sampling rate; the rate of the options was used.",
    "gain_assumed": "The file does not state its gain; the usual one was used.",
    "unit_assumed": "The file does not state its unit; it was assumed by size.",
    "not_a_voltage": "A channel in another unit than volts was not used.",
    "other_rate": "A channel with another sampling rate was not used.",
    "checksum_mismatch": "The checksum of the file is wrong, so samples may be damaged.",
    "initial_value_mismatch": "The first sample is not that of the header; samples may be damaged.",
    "sequence_sets": "The file holds several recordings; one was used.",
}
"""Kind of flag -> its meaning."""
