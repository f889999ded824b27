"""The planners at equal judged quality: each with a setting of its own, chosen on streams of its own."""
