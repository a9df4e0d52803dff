# SPDX-License-Identifier: Apache-2.0
"""Several controllers as one: who is there, who has fallen silent, whose each switch is.

Nothing here knows what a switch is programmed with. What a controller may do rests on conditions in the store and on
generations at the switches, never on what is believed here: a wrong suspicion costs a change of owner and no more.
"""
