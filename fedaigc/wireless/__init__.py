"""The radio link between the shared and the personal stage: bits, channels, rates and energy."""
