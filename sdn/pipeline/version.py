# SPDX-License-Identifier: Apache-2.0
"""Which pipeline this is: another number with each change of the tables, or of what entries mean to one another.

It is told with a controller's record, so that people see who would program what.
"""

#: 1: up to the first release.
PIPELINE_VERSION = 1
