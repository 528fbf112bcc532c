"""Okabe and Ito's colours, which people with colour-blindness tell apart."""

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"
SKY_BLUE, VERMILLION, PURPLE = "#56B4E9", "#D55E00", "#CC79A7"
