"""Stages that sample aligned models and measure how they behave; see config/spl.py for what is measured."""
