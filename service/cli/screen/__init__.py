"""What the commands show.

answers       answers of the service, as tables and text
discovery     what the commands about discovered pods show
explanations  what `kvatlas explain` shows
progress      bars for what takes a while, on a terminal
tables        tables for a terminal, or for another program; text that does not control either
top           the picture of `kvatlas top`
"""
