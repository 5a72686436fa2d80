# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Hub and of the mount share."""
