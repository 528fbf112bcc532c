"""The page on which people look at the labels of all images, and correct them."""

from lowshot_kedro.reporting.labels_page.page import LabelsPage

__all__ = ["LabelsPage"]
